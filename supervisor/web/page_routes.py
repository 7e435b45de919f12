"""The paths of the page's server, and the checks that stand before all of them. docs/page.md describes the answers."""

from __future__ import annotations

import hashlib
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from supervisor.commands.ctl import owner_of, socket_of
from supervisor.control.control_client import ask
from supervisor.control.control_protocol import MAX_REQUEST, ControlRequest
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import LonghaulError, UsageError
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.wording import one_line
from supervisor.experiment.experiment_status import is_running
from supervisor.storage.files.layout import Layout
from supervisor.web.experiment_catalogue import Catalogue
from supervisor.web.experiment_watch import ExperimentWatch
from supervisor.web.job_pages import JobFilter, parse_filter, parse_page
from supervisor.web.live_documents import (
    counts_at_hand,
    early_jobs_document,
    failures_document,
    job_document,
    jobs_document,
    live_document,
    running_jobs,
)
from supervisor.web.page_files import page_files
from supervisor.web.page_security import HEADERS, AccessRules
from supervisor.web.result_documents import ResultColumns, csv_rows
from supervisor.web.text_pieces import log_document, output_document, parse_position
from supervisor.web.time_documents import lanes_answer, parse_stretch, series_answer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_encode = msgspec.json.Encoder().encode
_decode_order = msgspec.json.Decoder(ControlRequest).decode

ORDERS = "pause, resume, drain, stop, workers, retry, cancel, stacks"


class ApiError(Exception):
    """An answer that is an error: JSON with `error` and `hint`."""

    def __init__(self, status: int, error: str, hint: str, **more: Any) -> None:
        super().__init__(error)
        self.status = status
        self.document = {"error": error, "hint": hint, **more}


def create_app(catalogue: Catalogue, rules: AccessRules, *, read_only: bool) -> App:
    """read_only: there is no path that takes an order."""
    api = _Api(catalogue, read_only=read_only)
    routes = [
        Route("/", api.page, methods=["GET"]),
        Route("/assets/{name:path}", api.asset, methods=["GET"]),
        Route("/api/experiments", api.answered(api.experiments), methods=["GET"]),
    ]
    for name in ("live", "jobs", "job", "output", "log", "failures", "timeline", "series", "columns", "plot"):
        routes.append(Route(f"/api/x/{{key}}/{name}", api.answered(getattr(api, name)), methods=["GET"]))
    routes.append(Route("/api/x/{key}/results.csv", api.results_csv, methods=["GET"]))
    if not read_only:
        routes.append(Route("/api/x/{key}/orders", api.orders, methods=["POST"]))
    app = Starlette(
        routes=routes,
        exception_handlers={ApiError: _told, HTTPException: _http_error, Exception: _fault},
    )
    app.router.redirect_slashes = False
    return _Guard(GZipMiddleware(app, minimum_size=2000, compresslevel=4), rules)


# ------------------------------------------------------------------------- before all


class _Guard:
    """Answers what may not be asked, and gives every answer its headers. Nothing else sees a request before."""

    def __init__(self, app: App, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = _joined(scope["headers"])

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        if headers is None:
            told = _error(400, "a header of the request occurs twice", "send each header once")
            await told(scope, receive, guarded)
            return
        refusal = self._rules.refusal(scope["method"], scope["path"], headers)
        if refusal is not None:
            await _error(*refusal)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


_ONCE = (b"host", b"origin", b"x-longhaul-token", b"sec-fetch-site")


def _joined(pairs: list[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """The headers by name; None if one that decides occurs twice."""
    names = [name for name, _ in pairs]
    if any(names.count(name) > 1 for name in _ONCE):
        return None
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}


def _error(status: int, error: str, hint: str) -> Response:
    return _json({"error": error, "hint": hint}, status)


def _json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_encode(document), status, headers, media_type="application/json")


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _json(error.document, error.status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        text = f"{request.method} is not possible here"
        return _json(
            {"error": text, "hint": "GET reads; POST is for orders alone, and not there with --read-only"},
            405,
            error.headers,
        )
    hint = (
        "the paths are in docs/page.md; a proxy in front of it takes the path away under which the page lies"
    )
    return _error(error.status_code, "there is nothing at this path", hint)


async def _fault(_: Request, error: Exception) -> Response:
    return _error(
        500,
        f"the server could not answer: {type(error).__name__}",
        "see what it printed where it was started",
    )


# ------------------------------------------------------------------------------- paths


class _Api:
    def __init__(self, catalogue: Catalogue, *, read_only: bool) -> None:
        self._catalogue = catalogue
        self._read_only = read_only
        self._columns: weakref.WeakKeyDictionary[ExperimentWatch, ResultColumns] = weakref.WeakKeyDictionary()

    def answered(self, make: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        """A path whose answer is JSON with an ETag, made in a thread."""

        async def endpoint(request: Request) -> Response:
            # Given up when the server ends: it may take as long as a journal takes to be read.
            return await run_sync(_answer, make, request, abandon_on_cancel=True)

        return endpoint

    # -- the page itself: nothing in it tells of an experiment

    async def page(self, request: Request) -> Response:
        return _file("index.html", request)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in page_files():
            raise ApiError(404, "there is nothing at this path", "open the address that was printed")
        return _file(name, request)

    # -- what is asked

    def _layout(self, request: Request) -> Layout:
        layout = self._catalogue.layout(request.path_params["key"])
        if layout is None:
            raise ApiError(
                404,
                "there is no experiment with this key",
                "api/experiments lists them; keys are those of its entries",
            )
        return layout

    def _watch(self, request: Request) -> ExperimentWatch:
        """Refreshed."""
        watch = self._catalogue.watch(request.path_params["key"], self._layout(request))
        watch.refresh()
        return watch

    def _with_table(self, request: Request) -> tuple[ExperimentWatch, JobTable]:
        watch = self._watch(request)
        table = watch.table
        if table is None and watch.trouble:
            raise ApiError(409, one_line(watch.trouble), "longhaul verify tells what is damaged")
        if table is None:
            raise ApiError(503, "the experiment is being read", "ask again in a moment")
        return watch, table

    def _results(self, request: Request) -> ResultColumns:
        watch = self._watch(request)
        return self._columns.setdefault(watch, ResultColumns(watch))

    def experiments(self, _: Request) -> Any:
        found = self._catalogue.listed()
        return {
            "experiments": found,
            "total": len(found),
            "complete": all(one.counted for one in found),
            "read_only": self._read_only,
        }

    def live(self, request: Request) -> Any:
        layout, key = self._layout(request), request.path_params["key"]
        watch = self._catalogue.watch(key, layout)
        # What a run or its checkpoint has counted is told at once: reading a large journal takes seconds.
        early = watch.takes_long and counts_at_hand(layout) is not None
        if not early:
            watch.refresh(patience=0.0 if is_running(layout) else 0.2, first=0.3)
        document = live_document(layout, key, watch, may_steer=not self._read_only)
        with watch.lock:
            document["failure_groups"] = len(watch.groups.ordered())
        if early:
            watch.begin()
        return document

    def jobs(self, request: Request) -> Any:
        wanted, number = parse_filter(request.query_params), parse_page(request.query_params.get("page", ""))
        watch = self._catalogue.watch(request.path_params["key"], self._layout(request))
        if (wanted, number) == (JobFilter(), 1) and watch.takes_long:
            early = early_jobs_document(watch.layout)
            if early is not None:
                watch.begin()
                return early
        watch, table = self._with_table(request)
        running = running_jobs(watch.layout, table)
        with watch.lock:
            found = watch.choices.page(table, wanted, number, running, watch.version)
            return jobs_document(table, found, wanted, running, complete=not watch.table_behind)

    def job(self, request: Request) -> Any:
        watch, table = self._with_table(request)
        return job_document(watch, table, _job(request, table))

    def output(self, request: Request) -> Any:
        position = parse_position(request.query_params.get("from", ""))
        watch, table = self._with_table(request)
        return output_document(watch.layout, table.ids[_job(request, table)], position)

    def log(self, request: Request) -> Any:
        return log_document(self._layout(request), parse_position(request.query_params.get("from", "")))

    def failures(self, request: Request) -> Any:
        watch, table = self._with_table(request)
        with watch.lock:
            return failures_document(watch, table)

    def timeline(self, request: Request) -> Any:
        wanted = parse_stretch(request.query_params)
        watch, table = self._with_table(request)
        now = _now(watch.layout)
        running = []
        if now is not None:
            for number, one in running_jobs(watch.layout, table).items():
                since = _epoch(one.since)
                if since is not None and table.state[number] not in (COMPLETED, FAILED):
                    running.append((one.worker, table.ids[number], min(since, now)))
        with watch.lock:
            return lanes_answer(watch.picture(now), wanted, running, complete=not watch.behind)

    def series(self, request: Request) -> Any:
        wanted = parse_stretch(request.query_params)
        watch, _ = self._with_table(request)
        with watch.lock:
            return series_answer(watch.picture(_now(watch.layout)), wanted, complete=not watch.behind)

    def columns(self, request: Request) -> Any:
        return self._results(request).document()

    def plot(self, request: Request) -> Any:
        return self._results(request).plot(request.query_params)

    async def results_csv(self, request: Request) -> Response:
        def begin() -> tuple[Layout, list[int]]:
            try:
                wanted = parse_filter(request.query_params)
                watch, table = self._with_table(request)
                running = running_jobs(watch.layout, table)
                with watch.lock:
                    return watch.layout, list(watch.choices.chosen(table, wanted, running, watch.version))
            except LonghaulError as error:
                raise _refused(error) from None

        layout, jobs = await run_in_threadpool(begin)
        name = f"{layout.experiment_id}.csv"
        return StreamingResponse(
            csv_rows(layout, jobs),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def orders(self, request: Request) -> Response:
        text = await _body(request)
        return await run_in_threadpool(self._order, request, text)

    def _order(self, request: Request, text: bytes) -> Response:
        layout = self._layout(request)
        try:
            asked = _decode_order(text)
        except msgspec.DecodeError as error:
            raise ApiError(
                400, f"this is no order: {error}", f'send {{"order": ...}}, one of: {ORDERS}'
            ) from None
        if asked.order in ("retry", "cancel") and not asked.jobs:
            raise ApiError(
                400, f"{asked.order} names no job", '"jobs" has ids or patterns, such as ["iris/*"]'
            )
        asked = msgspec.structs.replace(asked, by="page")
        try:
            answer = ask(socket_of(layout), asked, name=layout.experiment_id, owner=owner_of(layout))
        except LonghaulError as error:
            raise ApiError(
                409, one_line(str(error)), "api/x/K/live tells the state of the run", done=False
            ) from None
        if not answer.done:
            hint = "nothing was changed; api/x/K/jobs tells how the jobs stand"
            raise ApiError(409, one_line(answer.text), hint, done=False)
        return _json({"done": True, "text": answer.text, "stacks": answer.stacks})


def _file(name: str, request: Request) -> Response:
    file = page_files()[name]
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.content, media_type=file.kind)
    return Response(
        file.packed, 200, {"content-encoding": "gzip", "vary": "accept-encoding"}, media_type=file.kind
    )


async def _body(request: Request) -> bytes:
    text = b""
    async for piece in request.stream():
        text += piece
        if len(text) > MAX_REQUEST:
            raise ApiError(413, f"an order may have {MAX_REQUEST} bytes", "name jobs by a pattern")
    return text


def _answer(make: Callable[[Request], Any], request: Request) -> Response:
    try:
        body = _encode(make(request))
    except LonghaulError as error:
        raise _refused(error) from None
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, {"etag": tag})
    return Response(body, 200, {"etag": tag}, media_type="application/json")


def _refused(error: LonghaulError) -> ApiError:
    if isinstance(error, UsageError):
        return ApiError(400, one_line(str(error)), "docs/page.md describes what may be asked")
    return ApiError(409, one_line(str(error)), "longhaul verify tells what is damaged")


def _job(request: Request, table: JobTable) -> int:
    name = request.query_params.get("id", "")
    number = table.numbers.get(name)
    if number is None:
        raise ApiError(
            404, "there is no job with this id", "api/x/K/jobs lists them; the id is the whole one"
        )
    return number


def _now(layout: Layout) -> float | None:
    return time.time() if is_running(layout) else None


def _epoch(at: str | None) -> float | None:
    try:
        return datetime.fromisoformat(at or "").timestamp()
    except ValueError:
        return None
