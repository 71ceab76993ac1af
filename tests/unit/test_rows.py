"""The reader of text results: rows and keys from bytes in pieces of any size, and one sentence for every malformed result."""

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.model import encode_row
from cdc.mysql._rows import MalformedResult, RowReader, ServerError
from tests.fuzz_rows import fuzz, run
from tests.row_reader_model import END, WHOLE, read, stream

values = st.one_of(st.none(), st.binary(max_size=12), st.sampled_from([b"", b"x" * 250, b"x" * 251, b"y" * 65535, b"z" * 65536]))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_rows_and_keys_equal_the_specification(data):
    """For any columns, key and pieces, with rows taken early or late."""
    columns = data.draw(st.integers(1, 12))
    key = data.draw(st.lists(st.integers(0, columns - 1), min_size=1, max_size=columns, unique=True))
    rows = data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), max_size=8))
    sequence = data.draw(st.integers(0, 255))
    sent = stream([*map(encode_row, rows), END], sequence)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    result = run(sent, columns, key, cuts, sequence, take_early=data.draw(st.booleans()))
    assert result == read(sent, columns, key, sequence)
    assert result.outcome == "ended"
    assert result.rows == [encode_row(row) for row in rows]
    assert result.keys == [encode_row([row[i] for i in key]) for row in rows]


def test_bytes_may_come_one_by_one():
    """A piece may be a single byte of a header, of a length or of a value."""
    sent = stream([encode_row([b"1", None, b"v" * 300]), encode_row([b"2", b"", b"w"]), END])
    result = run(sent, 3, [0], list(range(len(sent))))
    assert result.outcome == "ended"
    assert result.keys == [b"\x011", b"\x012"]


@pytest.mark.parametrize("size", [WHOLE - 1, WHOLE, WHOLE + 1, 2 * WHOLE, 2 * WHOLE + 5])
def test_rows_over_16_mb_are_joined(size):
    """A payload is cut at 0xFFFFFF bytes; at exactly that length an empty packet follows."""
    head = encode_row([b"7", b"v" * (WHOLE // 2)])
    row = head + encode_row([random.Random(size).randbytes(size - len(head) - (4 if size - len(head) < 1 << 24 else 9))])
    assert len(row) == size
    result = run(stream([row, encode_row([b"8", b"", None]), END]), 3, [0], [1 << 20, 3 << 20])
    assert result.outcome == "ended"
    assert [len(each) for each in result.rows] == [size, 4]
    assert result.rows[0] == row
    assert result.keys == [b"\x017", b"\x018"]


def test_column_over_16_mb_does_not_end_the_result():
    """0xFE begins a long column, too; only a short payload ends the result."""
    row = encode_row([b"v" * (1 << 24), b"1"])
    result = run(stream([row, END]), 2, [1], [])
    assert (result.outcome, result.rows, result.keys) == ("ended", [row], [b"\x011"])


def test_end_packet_gives_status_warnings_and_next_sequence():
    """The connection needs them to continue."""
    reader = RowReader(1, [0], 250)
    assert reader.feed(stream([b"\x011"] * 10 + [b"\xfe\x03\x01\x22\x00"], 250))
    assert (len(reader), reader.warnings, reader.status, reader.sequence, reader.ended) == (10, 0x103, 0x22, 5, True)


@pytest.mark.parametrize("payload", [b"\xff\x19\x05#HY000gone \xc3\xa9\xff", b"\xff\x19\x05gone \xc3\xa9\xff", b"\xff\x19\x05"])
def test_error_packet_is_raised_with_code_and_text(payload):
    """In mid-result, with or without the SQL state; earlier rows can still be taken, no bytes can be fed after it."""
    reader = RowReader(1, [0])
    with pytest.raises(ServerError) as caught:
        reader.feed(stream([b"\x011", payload]))
    assert caught.value.code == 1305
    assert caught.value.text == ("gone é\ufffd" if len(payload) > 3 else "")
    assert len(reader) == 1
    with pytest.raises(ValueError, match="over"):
        reader.feed(b"")
    assert list(reader.take()[1]) == [b"\x011"]


def test_error_packet_may_have_sequence_0():
    """MariaDB sends one out of turn when it shuts down."""
    reader = RowReader(1, [0], 7)
    with pytest.raises(ServerError):
        reader.feed(stream([b"\x011"], 7) + stream([b"\xff\x1d\x04#08S01shutdown"], 0))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (stream([b"\x011"], 3), "out of sequence"),
        (stream([b"\x01", END]), "passes the end"),
        (stream([b"\xfc\x01"]), "passes the end"),
        (stream([b"\xfc\x05\x00abcd"]), "passes the end"),
        (stream([b"\xfd\x05\x00"]), "passes the end"),
        (stream([b"\xfd\xff\xff\xff" + b"x" * 20]), "passes the end"),
        (stream([b"\xfe" + b"\xff" * 8 + b"x"]), "passes the end"),
        (stream([b"\xfe" + (1 << 63).to_bytes(8, "little")]), "passes the end"),
        (stream([b"\x011\x012"]), "after its last column"),
        (stream([b""]), "empty"),
        (stream([b"\xff"]), "0xFF"),
        (stream([END]) + b"\0", "after its end"),
    ],
)
def test_malformed_result_is_refused(sent, message):
    """Each with its reason; the reader is then unusable."""
    reader = RowReader(1, [0])
    with pytest.raises(MalformedResult, match=message):
        reader.feed(sent)
    with pytest.raises(ValueError, match="over"):
        reader.feed(b"")


def test_row_with_too_few_columns_is_refused():
    """The message names the row."""
    reader = RowReader(2, [0])
    reader.feed(stream([b"\x011\xfb"]))
    reader.take()
    with pytest.raises(MalformedResult, match=r"too few columns \(row 2\)"):
        reader.feed(stream([b"\x011"], 1))


@pytest.mark.parametrize(("columns", "key"), [(0, [0]), (2, []), (2, [2]), (2, [-1]), (2, [1, 1])])
def test_key_consists_of_distinct_columns(columns, key):
    """Any other key is the caller's mistake."""
    with pytest.raises(ValueError, match="column"):
        RowReader(columns, key)


@pytest.mark.waits
def test_other_threads_run_while_rows_are_split():
    """The GIL is released: another thread reaches the reader, and is refused."""
    big = stream([encode_row([b"k", b"v" * 100])] * 200_000)
    refused: list[RuntimeError] = []
    for _ in range(1000):  # one may be over before the other thread has its turn
        reader, started, done = RowReader(2, [0]), threading.Event(), threading.Event()
        thread = threading.Thread(target=_interfere, args=(reader, refused, started, done))
        thread.start()
        started.wait()
        reader.feed(big)
        done.set()
        thread.join()
        if refused:
            break
    assert refused


def _interfere(reader: RowReader, refused: list[RuntimeError], started: threading.Event, done: threading.Event) -> None:
    started.set()
    while not done.is_set():
        try:
            reader.take()
        except RuntimeError as error:
            refused.append(error)
            return


def test_mutated_results_end_in_a_sentence():
    """The same mutations as `make fuzz`, for a moment; every kind of outcome occurs, and each equals the specification's."""
    outcomes = fuzz(seed=1, results=4000)
    assert set(outcomes) == {"more", "ended", "error", "malformed"}
