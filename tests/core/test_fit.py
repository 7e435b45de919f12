"""What a job takes, and whether it can ever run with what there is."""

from __future__ import annotations

import pytest

from supervisor.core.places.place import Place, SharedResources
from supervisor.core.places.shortages import what_it_lacks, why_unfit
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.needs import Amounts, Needs, Totals, amounts_of
from supervisor.core.terms.settings import Settings

G = 1 << 30
THERE = Totals(cpus=4000, memory=15 * G, gpus=("0", "1"), resources={"license": 2000})


@pytest.mark.parametrize(
    ("needs", "settings", "amounts"),
    [
        (None, Settings(), Amounts()),
        (None, Settings(job_cpus=2, job_memory=G, job_gpus=0.5), Amounts(2000, G, 500)),
        (Needs(cpus=0.25), Settings(job_cpus=2, job_memory=G), Amounts(250, G, 0)),
        (Needs(memory=0, gpus=0), Settings(job_memory=G, job_gpus=1), Amounts(1000, 0, 0)),
        (
            Needs(resources={"b": 0.001, "a": 2}),
            Settings(resources={"a": 3, "b": 4}),
            Amounts(resources=(("a", 2000), ("b", 1))),
        ),
    ],
)
def test_a_job_takes_what_it_says_and_else_what_every_job_takes(
    needs: Needs | None, settings: Settings, amounts: Amounts
) -> None:
    assert amounts_of(needs, settings) == amounts


@pytest.mark.parametrize(
    "amounts",
    [
        Amounts(),
        Amounts(4000, 15 * G, 2000, (("license", 2000),)),
        Amounts(gpus=500),
        Amounts(cpus=1),
    ],
)
def test_what_there_is_fits(amounts: Amounts) -> None:
    assert why_unfit(amounts, THERE) == ""


@pytest.mark.parametrize(
    ("amounts", "why"),
    [
        (Amounts(8000), "asks for 8 cores, but there are 4 (--workers)"),
        (Amounts(4001), "asks for 4.001 cores, but there are 4 (--workers)"),
        (Amounts(memory=16 * G), "asks for 16G of memory, but there is 15G (--memory)"),
        (
            Amounts(memory=15 * G + 1),
            "asks for 16,106,127,361 bytes of memory, but there are 16,106,127,360 bytes (--memory)",
        ),
        (Amounts(gpus=3000), "asks for 3 GPUs, but there are 2 (--gpus)"),
        (
            Amounts(resources=(("license", 2500),)),
            "asks for license=2.5, but there are 2 (--resource)",
        ),
        (
            Amounts(resources=(("api", 1000), ("license", 1000))),
            "asks for api=1, but there is none (--resource api=N; offered: license)",
        ),
        (
            Amounts(8000, 16 * G),
            "asks for 8 cores, but there are 4 (--workers), and for 16G of memory, but there is 15G (--memory)",
        ),
    ],
)
def test_what_is_too_much_is_named_with_what_there_is(amounts: Amounts, why: str) -> None:
    assert why_unfit(amounts, THERE) == why


def test_what_one_node_has_is_not_up_to_an_option() -> None:
    amounts = Amounts(8000, 16 * G, 3000)
    assert why_unfit(amounts, THERE, of_nodes=True) == (
        "asks for 8 cores, but no node has more than 4, and for 16G of memory, but no node has more than 15G, "
        "and for 3 GPUs, but no node has more than 2"
    )
    assert why_unfit(Amounts(), THERE, of_nodes=True) == ""
    assert why_unfit(amounts, of_nodes=True).endswith("and there is no node")


NODES = (Totals(2000, 8 * G, ("a", "b"), {"api": 1000}), Totals(8000, 4 * G, (), {"api": 1000}))


@pytest.mark.parametrize(
    ("amounts", "why"),
    [
        (Amounts(8000, 4 * G), ""),
        (Amounts(2000, 8 * G, 2000, (("api", 1000),)), ""),
        (Amounts(9000), "asks for 9 cores, but no node has more than 8"),
        (Amounts(memory=9 * G), "asks for 9G of memory, but no node has more than 8G"),
        (
            Amounts(9000, gpus=3000),
            "asks for 9 cores, but no node has more than 8, and for 3 GPUs, but no node has more than 2",
        ),
        (Amounts(3000, gpus=500), "asks for 3 cores, 0.5 of a GPU, and no node has all of that"),
        (Amounts(8000, 5 * G), "asks for 8 cores, 5G of memory, and no node has all of that"),
        (Amounts(resources=(("api", 2000),)), "asks for api=2, but there is 1 (--resource)"),
    ],
)
def test_of_several_nodes_the_reason_is_never_empty(amounts: Amounts, why: str) -> None:
    assert why_unfit(amounts, *NODES) == why


def test_without_a_node_or_a_device_in_any_the_reason_says_so() -> None:
    assert why_unfit(Amounts(gpus=1000), NODES[1], NODES[1]) == "asks for 1 GPU, but no node has any"
    assert why_unfit(Amounts(2000)) == "asks for 2 cores, and there is no node"


def test_a_share_of_a_device_needs_a_device() -> None:
    bare = Totals(cpus=1000)
    assert why_unfit(Amounts(gpus=500), bare) == "asks for 0.5 of a GPU, but there is none (--gpus)"
    assert why_unfit(Amounts(gpus=1000), bare) == "asks for 1 GPU, but there is none (--gpus)"
    assert why_unfit(Amounts(cpus=2000), bare) == "asks for 2 cores, but there is 1 (--workers)"


@pytest.mark.parametrize(
    ("amounts", "lacks"),
    [
        (Amounts(2000, 5 * G, 500, (("license", 1000),)), ""),
        (Amounts(3000), "3 cores (2 free)"),
        (Amounts(memory=8 * G), "8G of memory (5G free)"),
        (Amounts(memory=5 * G + 1), "5,368,709,121 bytes of memory (5,368,709,120 bytes free)"),
        (Amounts(gpus=1000), "1 GPU (none free)"),
        (Amounts(gpus=750), "0.75 of a GPU (0.5 free)"),
        (Amounts(2500, gpus=2000), "2.5 cores (2 free) and 2 GPUs (none free)"),
        (Amounts(resources=(("license", 2000),)), "license=2 (1 free)"),
    ],
)
def test_what_a_job_lacks_now_is_named_with_what_is_free(amounts: Amounts, lacks: str) -> None:
    place = Place(PlaceFacts(0, "", 4, THERE), SharedResources(THERE.resources))
    place.take(Amounts(2000, 10 * G, 1000, (("license", 1000),)), (0,))
    place.take(Amounts(0, gpus=500), (1,))
    assert what_it_lacks(amounts, place) == lacks


def test_nothing_is_free_where_more_is_taken_than_there_is() -> None:
    place = Place(PlaceFacts(0, "", 2, Totals(2000, memory=G)), SharedResources({}))
    place.take(Amounts(4000, 2 * G), ())
    assert what_it_lacks(Amounts(1000, G), place) == "1 core (none free) and 1G of memory (none free)"


def test_memory_that_is_unknown_is_enough_for_everything() -> None:
    assert why_unfit(Amounts(memory=1 << 60), Totals(cpus=1000)) == ""
