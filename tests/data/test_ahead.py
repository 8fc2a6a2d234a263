"""Reading ahead."""

import threading

import pytest

from emberline.data import Ahead


def numbers(read, decode=lambda value: value, *, threads: int = 2, depth: int = 3, last: int = 20) -> Ahead:
    return Ahead(read, decode, lambda key: key + 1 if key < last else None, threads=threads, depth=depth)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_values_are_those_that_were_asked_for_in_and_out_of_turn(threads):
    ahead = numbers(lambda key: key * key, threads=threads)
    assert [ahead(key) for key in (0, 1, 2, 5, 6, 3, 20, 0, 20)] == [0, 1, 4, 25, 36, 9, 400, 0, 400]


def test_the_next_few_are_read_while_the_caller_is_busy_and_no_more():
    read, ready = [], threading.Event()

    def slow(key):
        read.append(key)
        if len(read) == 4:
            ready.set()
        return key

    ahead = numbers(slow)
    ahead(0)
    assert ready.wait(10)
    assert read == [0, 1, 2, 3]
    assert ahead(1) == 1
    assert threading.current_thread() not in {thread for thread in threading.enumerate() if "ahead" in thread.name}


def test_what_a_read_raises_comes_where_it_was_asked_for():
    def bad(key):
        if key == 2:
            raise ValueError("row 2")
        return key

    ahead = numbers(bad)
    assert (ahead(0), ahead(1)) == (0, 1)
    with pytest.raises(ValueError, match="row 2"):
        ahead(2)
    assert ahead(3) == 3


def test_reading_is_in_turn_while_several_threads_decode():
    read, both = [], threading.Barrier(2, timeout=10)

    def decode(key):
        both.wait()  # passes only where two threads are here at a time
        return -key

    ahead = numbers(lambda key: read.append(key) or key, decode, last=19)
    assert [ahead(key) for key in range(20)] == [-key for key in range(20)]
    assert read == list(range(20))
