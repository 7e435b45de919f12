"""Which places join a run and which end, for the user and the records. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.core.dispatch.dispatcher import Dispatcher
from supervisor.core.dispatch.turn import Turn
from supervisor.core.terms.events import CarrierNotice, PlaceEnd, PlaceFacts, PlaceFenced, PlacesChanged, Tell
from supervisor.core.terms.records import Noted
from supervisor.core.terms.wording import count, one_line

_NAMED = 3  # places that one message names


class PlaceNotices:
    """places: those that there are at the beginning. why_ended: a sentence about each that has ended, by number."""

    def __init__(self, dispatcher: Dispatcher, places: Sequence[PlaceFacts]) -> None:
        self._dispatcher = dispatcher
        self._known = {place.place: place for place in places}
        self.why_ended: dict[int, str] = {}
        self._names_of_ended: dict[int, str] = {}

    def on_changed(self, event: PlacesChanged, turn: Turn) -> None:
        """To be called before the dispatcher hears of it."""
        before, self._known = self._known, {place.place: place for place in event.places}
        ends = {end.place: end for end in event.ended}
        for number in before.keys() - self._known.keys():
            self._has_ended(before[number], ends.get(number, PlaceEnd(number, "")), turn)
        if joined := [place for place in event.places if place.place not in before]:
            self._have_joined(joined, turn)
        if before and not self._known:
            text = "no node is left: jobs wait for one that joins"
            turn.effects.commands.append(Tell("warning", text))

    def on_fenced(self, event: PlaceFenced, turn: Turn) -> None:
        """To be called before its workers are told to be dead."""
        name = self._names_of_ended.get(event.place, "")
        how = "no process of its jobs is alive" if event.confirmed else "its agent has ended its jobs by now"
        detail = {"place": name, "confirmed": event.confirmed}
        turn.effects.records.append(Noted("place_fenced", turn.at, detail))
        turn.effects.commands.append(Tell("info", f"{one_line(name)} is fenced: {how}; they run again"))

    def on_notice(self, event: CarrierNotice, turn: Turn) -> None:
        turn.effects.commands.append(Tell(event.level, one_line(event.text)))

    def _has_ended(self, place: PlaceFacts, end: PlaceEnd, turn: Turn) -> None:
        at_work = self._at_work(place.place)
        name, why = one_line(place.name), f": {one_line(end.why)}" if end.why else ""
        said = f"{name} has ended{why}" if end.blameless else f"{name} is lost{why}"
        self.why_ended[place.place], self._names_of_ended[place.place] = said, place.name
        detail = {"place": place.name, "why": end.why, "jobs": at_work}
        turn.effects.records.append(Noted("place_ended" if end.blameless else "place_lost", turn.at, detail))
        turn.effects.commands.append(
            Tell("info" if end.blameless else "warning", f"{said}; {_jobs(at_work)}")
        )

    def _at_work(self, place: int) -> int:
        return sum(worker.place == place for worker, _ in self._dispatcher.running())

    def _have_joined(self, joined: Sequence[PlaceFacts], turn: Turn) -> None:
        names = [one_line(place.name) for place in joined[:_NAMED]]
        more = [f"{len(joined) - _NAMED:,} more"] if len(joined) > _NAMED else []
        *first, last = [*names, *more]
        who = f"{', '.join(first)} and {last}" if first else last
        slots = sum(place.slots for place in joined)
        text = f"{who} {'joins' if len(joined) == 1 else 'join'}: {count(slots, 'worker')}"
        there = sum(place.slots for place in self._known.values())
        text += f", {there:,} in all" if there > slots else ""
        detail = {"places": [place.name for place in joined], "slots": slots}
        turn.effects.records.append(Noted("places_joined", turn.at, detail))
        turn.effects.commands.append(Tell("info", text))


def _jobs(number: int) -> str:
    if not number:
        return "no job was running there"
    again = "runs again, uncharged, once it has" if number == 1 else "run again, uncharged, once they have"
    return f"{count(number, 'job')} that ran there {again} certainly ended"
