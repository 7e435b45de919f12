"""What there is for the jobs, and which of them ask for more."""

from __future__ import annotations

import pytest

from supervisor.core.places.job_kinds import JobKinds
from supervisor.core.places.shortages import describe_unfit
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.jobs import COMPLETED, OwnSettings
from supervisor.core.terms.needs import THOUSAND, Needs, Totals
from supervisor.core.terms.settings import Settings
from supervisor.experiment.fitting.machine_totals import (
    Machine,
    missing_devices,
    slots_of,
    totals_of,
)
from supervisor.experiment.fitting.unfit_jobs import (
    first_offer,
    later_offer,
    refuse_missing_devices,
    refuse_unfit,
)
from supervisor.system.capacity.gpu_devices import GpuDevices

G = 1 << 30


def machine(gpus: int | None = 0, memory: int | None = 16 * G) -> Machine:
    """One with so many GPUs that the driver lists; None: without a driver."""
    names = tuple(map(str, range(gpus or 0)))
    return Machine(
        cores=lambda: 3,
        memory=lambda: memory,
        devices=lambda: GpuDevices(names, by_driver=gpus is not None, found_in="somewhere"),
        listed=lambda: gpus,
    )


# ------------------------------------------------------------------------------- totals


def test_by_default_the_totals_are_those_of_the_machine() -> None:
    assert totals_of(Settings(), machine(2)) == Totals(6000, 16 * G, ("0", "1"), {}, by_driver=True)
    assert totals_of(Settings(workers="auto"), machine(memory=None)) == Totals(3000, None, by_driver=True)
    assert slots_of(Settings(workers="auto"), machine()) == 3


def test_what_is_to_be_kept_free_is_not_given() -> None:
    assert totals_of(Settings(keep_free=2 * G), machine()).memory == 14 * G
    assert totals_of(Settings(keep_free=20 * G), machine()).memory == 0
    assert totals_of(Settings(keep_free=2 * G, memory=15 * G), machine()).memory == 15 * G


def test_other_resources_are_those_of_the_settings() -> None:
    settings = Settings(resources={"license": 2, "api": 0.5})
    assert totals_of(settings, machine()).resources == {"license": 2000, "api": 500}


@pytest.mark.parametrize(
    ("gpus", "names", "by_driver"),
    [
        ("auto", ("0", "1", "2"), True),
        ("2", ("0", "1"), True),
        ("0", (), False),
        ("none", (), False),
        ("2,0", ("2", "0"), False),
        ("1,", ("1",), False),
        ("GPU-1,MIG-2", ("GPU-1", "MIG-2"), False),
    ],
)
def test_devices_are_counted_or_named(gpus: str, names: tuple[str, ...], by_driver: bool) -> None:
    totals = totals_of(Settings(gpus=gpus), machine(3))
    assert (totals.gpus, totals.by_driver) == (names, by_driver)
    assert missing_devices(Settings(gpus=gpus), machine(3)) == ""


@pytest.mark.parametrize(
    ("gpus", "there", "told"),
    [
        ("4", 3, "--gpus 4: found 3 GPUs (somewhere). Ask for less, or name them: --gpus 0,1"),
        ("1", 0, "--gpus 1: found no GPU (somewhere). Ask for less, or name them: --gpus 0,1"),
        ("1", None, "--gpus 1: found no GPU (somewhere). Ask for less, or name them: --gpus 0,1"),
        (
            "0,5",
            2,
            "--gpus 0,5: there is no device 5: the NVIDIA driver lists 2 GPUs. Ask for less, or name them: --gpus 0,1",
        ),
    ],
)
def test_devices_that_are_certainly_not_there_are_refused(gpus: str, there: int | None, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        refuse_missing_devices(Settings(gpus=gpus), machine(there))
    assert str(caught.value) == told


def test_names_are_taken_as_they_are_where_nobody_can_tell() -> None:
    assert missing_devices(Settings(gpus="0,5"), machine(None)) == ""
    assert missing_devices(Settings(gpus="GPU-1,GPU-2"), machine(1)) == ""


def test_fewer_devices_than_asked_for_are_those_that_there_are() -> None:
    assert totals_of(Settings(gpus="4"), machine(1)).gpus == ("0",)


# --------------------------------------------------------------------------- unfit jobs


def table_of(*needs: Needs | None) -> JobTable:
    table = JobTable()
    for number, need in enumerate(needs):
        table.add(f"job/{number}", None)
        if need is not None:
            table.own[number] = OwnSettings(needs=need)
    return table


def refusal(table: JobTable, totals: Totals, mask: bytes = b"", settings: Settings | None = None) -> str:
    kinds = JobKinds(table, settings or Settings())
    try:
        refuse_unfit(table, mask or bytes([1]) * len(table), kinds, totals)
    except UsageError as error:
        return str(error)
    return ""


def test_the_first_job_that_does_not_fit_is_named() -> None:
    big = Needs(cpus=8)
    totals = Totals(4000)
    advice = "Ask for less, or offer more."
    assert refusal(table_of(None, big), totals) == (
        f"job 'job/1': asks for 8 cores, but there are 4 (--workers). {advice}"
    )
    assert refusal(table_of(None, big, Needs(cpus=4), big), totals) == (
        f"job 'job/1': asks for 8 cores, but there are 4 (--workers); 1 more job cannot run either. {advice}"
    )
    several = table_of(Needs(gpus=1), big, big)
    assert refusal(several, totals).endswith("; 2 more jobs cannot run either. " + advice)
    assert refusal(several, totals, mask=b"\0\1\0").startswith("job 'job/1': asks for 8 cores")
    assert refusal(several, totals, mask=b"\0\0\0") == ""
    assert refusal(table_of(None, None), totals) == ""


def test_what_every_job_needs_may_be_too_much() -> None:
    text = refusal(table_of(None, Needs(cpus=1)), Totals(4000), settings=Settings(job_cpus=5))
    assert text.startswith("job 'job/0': asks for 5 cores, but there are 4 (--workers). ")


def test_a_job_is_described_in_one_line() -> None:
    table = JobTable()
    table.add("a\x1b[1m\nb", None)
    table.own[0] = OwnSettings(needs=Needs(resources={"license": 1}))
    text = describe_unfit(table, [0], JobKinds(table, Settings()), Totals(1000))
    assert text == "job 'a b': asks for license=1, but there is none (--resource license=N)"


def test_an_offer_is_made_only_where_somebody_asks() -> None:
    nobody, somebody = table_of(None, None), table_of(None, Needs(gpus=1))
    assert first_offer(nobody, b"\1\1", Settings(gpus="2", memory=G), machine(2)) is None
    assert later_offer(nobody, Settings(), machine(2)) is None
    offer = first_offer(somebody, b"\1\1", Settings(), machine(2))
    assert offer is not None and offer.gpu_jobs and offer.totals.gpus == ("0", "1")
    offer = first_offer(nobody, b"\1\1", Settings(job_cpus=2), machine(2))
    assert offer is not None and not offer.gpu_jobs


def test_the_first_start_refuses_what_a_resume_only_tells() -> None:
    table, settings = table_of(Needs(gpus=2)), Settings(gpus="2")
    with pytest.raises(UsageError, match="--gpus 2: found 1 GPU"):
        first_offer(table, b"\1", settings, machine(1))
    with pytest.raises(UsageError, match="--gpus 2: found 1 GPU"):
        first_offer(table_of(None), b"\1", settings, machine(1))
    with pytest.raises(UsageError, match="asks for 2 GPUs, but there is 1"):
        first_offer(table, b"\1", Settings(), machine(1))
    offer = later_offer(table, settings, machine(1))
    assert offer is not None and offer.totals.gpus == ("0",)
    assert offer.missing == "--gpus 2: found 1 GPU (somewhere)"
    offer = later_offer(table, Settings(), machine(1))
    assert offer is not None and offer.missing == "--gpus auto: found 1 GPU (somewhere)"
    offer = later_offer(table, Settings(), machine(2))
    assert offer is not None and offer.missing == ""
    table.state[0] = COMPLETED
    offer = later_offer(table, Settings(), machine(1))
    assert offer is not None and offer.missing == "", "nobody waits for a device"


def test_who_did_not_say_which_devices_there_are_is_told_what_was_looked_at() -> None:
    table = table_of(Needs(gpus=1), Needs(cpus=9))
    with pytest.raises(UsageError) as caught:
        first_offer(table, b"\1\0", Settings(), machine(0))
    assert str(caught.value) == (
        "job 'job/0': asks for 1 GPU, but there is none (--gpus). --gpus auto: found no GPU (somewhere). "
        "Ask for less, or name them: --gpus 0,1"
    )
    with pytest.raises(UsageError, match=r"there is none \(--gpus\)\. Ask for less, or offer more\."):
        first_offer(table, b"\1\0", Settings(gpus="none"), machine(2))
    with pytest.raises(
        UsageError, match=r"asks for 9 cores, but there are 6 \(--workers\)\. Ask for less, or offer"
    ):
        first_offer(table, b"\0\1", Settings(), machine(0))


def test_of_a_cluster_the_largest_node_is_told_and_no_option_that_offers_nothing() -> None:
    table = table_of(None, Needs(cpus=8))
    cluster = machine(memory=None)._replace(cores=lambda: 12, largest=4)
    with pytest.raises(UsageError) as refused:
        first_offer(table, bytes([1, 1]), Settings(workers="auto"), cluster)
    assert str(refused.value) == (
        "job 'job/1': asks for 8 cores, but no node has more than 4. Ask for less, or let a larger node join the "
        "cluster."
    )
    with pytest.raises(UsageError, match=r"asks for 8 cores, but there are 2 \(--workers\)"):
        first_offer(table, bytes([1, 1]), Settings(workers=2), cluster)


@pytest.mark.parametrize(("workers", "largest"), [("auto", 4), (1, 4), (2, 16)])
def test_on_a_cluster_each_worker_has_the_cores_of_its_job(workers: int | str, largest: int) -> None:
    cluster = machine(memory=None)._replace(cores=lambda: 1, largest=largest)
    settings = Settings(workers=workers, job_cpus=3)
    offer = first_offer(table_of(None), bytes([1]), settings, cluster)
    assert offer is not None and offer.totals.cpus == (6 if workers == 2 else 3) * THOUSAND
    with pytest.raises(UsageError, match=rf"asks for 20 cores, but no node has more than {largest}\."):
        first_offer(table_of(None), bytes([1]), Settings(workers=workers, job_cpus=20), cluster)
