"""What is known of a whole tensor before its first chunk: measured once, by whoever has nothing else to do, and forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_jobs import Look, Toy, go, interrupted, make_plan

from streamconv.errors import BadInput
from streamconv.workers import Workers


def asking(*looks: Look) -> Callable[[int], None]:
    """Needs what these looks find to make a row."""

    def hook(_row: int) -> None:
        for look in looks:
            look.ask()

    return hook


def count(looks: list[Look]) -> list[int]:
    return [look.n_measured for look in looks]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_tensor_is_measured_once_before_its_first_row_and_forgotten_after_its_last(
    tmp_path: Path, threads: int
) -> None:
    looks = [Look(), Look()]
    toy = Toy("a", looks=looks)
    toy.hook = asking(*looks)
    go(make_plan(tmp_path, [toy, Toy("b")]), threads=threads)
    assert count(looks) == [1, 1]
    assert [look.value for look in looks] == [None, None]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_several_tensors_need_is_measured_once_for_all_and_kept_until_the_last(
    tmp_path: Path, threads: int
) -> None:
    shared, own = Look(), Look()
    first, last = Toy("a", looks=[shared]), Toy("c", looks=[shared, own])
    first.hook, last.hook = asking(shared), asking(shared, own)
    go(make_plan(tmp_path, [first, Toy("b"), last]), threads=threads)
    assert (shared.n_measured, own.n_measured, shared.value) == (1, 1, None)


def test_what_is_finished_is_not_measured_again_and_what_is_not_is(tmp_path: Path) -> None:
    looks = [Look(), Look()]
    toys = [Toy("a", 4, looks=looks[:1]), Toy("b", looks=looks[1:])]
    interrupted(make_plan(tmp_path, toys), 9)
    go(make_plan(tmp_path, toys))
    assert count(looks) == [1, 2]


def test_others_go_on_with_other_tensors_meanwhile(tmp_path: Path) -> None:
    measured, order = Toy("a"), []
    others = [Toy("b"), Toy("c")]
    n_others = sum(toy.n_rows for toy in others)
    all_made = threading.Event()

    def waiting(workers: Workers) -> None:
        assert all_made.wait(10), "nobody made the others"

    def made(row: int) -> None:
        order.append(row)
        if len(order) == n_others:
            all_made.set()

    measured.looks = [Look(waiting)]
    for toy in others:
        toy.hook = made
    go(make_plan(tmp_path, [measured, *others]), threads=2)
    assert len(measured.made) == measured.n_rows


def test_who_has_nothing_else_to_do_helps_and_nothing_else_is_measured_meanwhile(tmp_path: Path) -> None:
    together, at_once = threading.Barrier(3), []

    def meet() -> None:
        together.wait(10)

    def shared(workers: Workers) -> None:
        at_once.append(1)
        assert len(at_once) == 1
        workers.fold(lambda: None, lambda _, n: meet(), 3)
        at_once.clear()

    go(make_plan(tmp_path, [Toy(name, 4, looks=[Look(shared)]) for name in "abcd"]), threads=3)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_a_look_finds_wrong_ends_the_run_with_its_words(tmp_path: Path, threads: int) -> None:
    def wrong(workers: Workers) -> None:
        raise BadInput("they differ")

    toys = [Toy("a"), Toy("b", looks=[Look(wrong)]), Toy("c")]
    with pytest.raises(BadInput, match="they differ"):
        go(make_plan(tmp_path, toys), threads=threads)
    assert not toys[1].made
