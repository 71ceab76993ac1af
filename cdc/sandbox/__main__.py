"""For scripts of the source tree that make images of the same packages.

python -m cdc.sandbox serve FLAVOR                       what `cdc sandbox` does
python -m cdc.sandbox unpack FLAVOR                      prints the folder of the flavor's unpacked packages
python -m cdc.sandbox unpack NAME SUITE PACKAGE...       the same for any packages of Debian
python -m cdc.sandbox bootstrap FLAVOR                   prints the SQL of its system tables, if it does not make them
"""

import sys

from cdc.sandbox import FLAVORS, packages, process, serve


def say(text: str) -> None:
    """Report a slow step on stderr, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def main(command: str, name: str, *rest: str) -> None:
    """Run one command."""
    if command == "serve":
        serve(name)
    elif command == "unpack" and rest:
        print(packages.unpack_suite(name, rest[0], rest[1:], say).path)
    elif command == "unpack":
        print(packages.unpack(FLAVORS[name], say).path)
    elif command == "bootstrap":
        sys.stdout.buffer.write(process.bootstrap(process.unpacked(FLAVORS[name], say)))
    else:
        sys.exit(__doc__)


main(*sys.argv[1:])
