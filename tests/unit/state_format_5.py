"""The checkpoint database of a state folder as versions up to format 5 wrote it: one table `a` with one row, at transaction 5.

Made by the last version with that format (commit e1f7984): `MapStoreTarget(path).apply(...)`, `.commit(...)`.
"""

import zlib
from base64 import b64decode

DATABASE = zlib.decompress(
    b64decode(
        """
        eNrtms1v2zYUwKl4XWujSbYBQTBkB0aXxZgVWE27Lrlsjqt06Tx7k91hRRAIjEQ7RKiPUpRTI8ihK7b9n/sfdh8pu3Fkq9gOu2x9P8iA3oeeHvl0eY/u/9hh
        kuJhLEIi8R76CBkG+gZjhFBF/T5Ac1YWZAP9PRW06xura89Q5X6I1tz74VoVAQAAAAAAAADwPvDm05W7m5Zl/EolOePUP6f+RRKzSHqlcqXtOq2Bgwetw46D
        F614p1a9pWMBPu4OnKeOi7u9Ae4+73QauFZNlUtI8E8tt/1tq2iKSEhLDQEdsohJFkf4Wb/XLcaTRJY/5WcijQU+7PQOtSjiy9Tz44TR8sRYSEblgX5wj79v
        uS/wd84LvFNYYQNPl9PAOve6dj7quc7x0652LvrWsescOa7TbTv9W3uHd7RJLeqJ03HU3rZb/XbriVOrf135cLNvGYhFAX2VvuSqK/RIJuNc9hY337MXNboz
        vJcX+Qvj7ub2tvHb9kJR53cr7yisLuk76jhrUMtMCRGyvCKCqmIFnnruqNNrDYqFpGJMRbpc4SEnY1XHsoAjyYIUD5yfi6FIknBdZm3IIzB+U1ktm/FwmFJp
        lmYfEnGRJ6EFHqdyOb6gSayWuJSpUKsrWUBK1a6Xf72FT0t9CLX6qm7k1/5A6gIAAAAAAAAAAACA/zC/bBmfIGOrerp5ij43NlY/fl1/vX3Hz4SgkTwx96ht
        D8nDx9Zj2yeWbVPb2qd7e5b/VZOQ/YcP9h99+cA8DSfpS/5PXA9s69EZi3g82m1q7GqUcX51fWX6cTLx9FTIPMDN3WYDTzVnE9XE36hSKSgJi24z3S1HFe2S
        RJIGSjw5VS70lc+zYC6nFyxJ5iKPL6nwfJLS2fRGj4/yWNfT/v8zpC4AAAAAAAAAAADgPeUNMWrVjfXfK1vonpWexwnRXSzPwkj3jidXpm4j1Z3JAlN1mQGR
        xJOTZKqKpJm3uNp9SXtOhD4QP8C6OZ66caKPrOcqTqORPJ/LAfVZSHg614xoRPURuG5zh8pCrxt4ntN4KaUxEfrFJWnNLDv79WJ2Jkl9xsx/L0HdjF/Qid69
        pr7P/1yhXzQ7mNevGjMhM8JvWnkqJc9DSJFRpYh5QMVbq6A+jW5t5GxwYOcpZ7MRgX7wWg8bWDRqvsW2mrshSWq6/1//E6kLAAAAAAAAAAAAAID/E7U71Y31
        aj7R+Qvf5AZm
        """
    )
)
