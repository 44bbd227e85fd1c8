"""Who held what, for how long, and used how much of it, over HTTP: as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from nimbus_hub.api.handler import ApiHandler, Operation, Query
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.schemas import Response
from nimbus_hub.control.accounting import Account, By, Period, Report
from nimbus_hub.errors import Forbidden

__all__ = ["UsageHandler", "UsageReport", "UsageRow"]

_WEEK = timedelta(days=7)
_CSV = "text/csv"
_DIGITS = 6
_FIRST_YEAR = 1970
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def _in_utc(moment: datetime) -> datetime:
    try:
        found = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be before the year 10000 in UTC") from None
    if found.year < _FIRST_YEAR:
        raise ValueError(f"must be in {_FIRST_YEAR} or later")
    return found


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class UsageQuery(Query):
    """Of when, of whom, and by what; without more, the caller's own of the last seven days."""

    since: Moment | None = Field(default=None, description="none: a week before until")
    until: Moment | None = Field(default=None, description="none: now")
    by: By = By.USER
    owner: str | None = Field(default=None, description="another user's, for administrators")
    all: bool = Field(default=False, description="everybody's, for administrators")
    format: Literal["json", "csv"] | None = Field(default=None, description="none: by Accept")


class UsageRow(Response):
    """What was held and used: GPUs, CPUs and GiB of memory, each times hours.

    ``key`` is the user, group (empty: in none), kind, or day in UTC. ``gpu_model_hours`` is
    what was held by model, ``unknown`` on hosts that are gone. ``busy_percent`` is how busy
    the GPUs were, null where none was held.
    """

    key: str
    leases: int
    gpu_hours_held: float
    gpu_hours_busy: float
    busy_percent: float | None
    gpu_model_hours: dict[str, float]
    cpu_hours_held: float
    cpu_hours_used: float
    gib_hours_held: float


class UsageReport(Response):
    """What was held from ``since`` to ``until``; ``owner`` is null for everybody's."""

    since: datetime
    until: datetime
    by: By
    owner: str | None
    items: list[UsageRow]
    total: UsageRow


class UsageHandler(ApiHandler):
    """The accounts of the caller; an administrator's: of anybody, and of groups."""

    operations = {
        "get": Operation(
            "Show who held and used how much",
            Scope.READ,
            UsageReport,
            query=UsageQuery,
            also_media=(_CSV,),
        )
    }

    async def get(self) -> None:
        """Add up what was held and used in a period."""
        query = self.parse_query(UsageQuery)
        owner = self._owner(query)
        control = self.services.control
        until = query.until or control.clock.now()
        since = query.since or until - _WEEK
        report = await control.accounting.report(Period(since, until), query.by, owner)
        accept = self.request.headers.get("Accept", "")
        if query.format == "csv" or (query.format is None and _CSV in accept):
            self._reply_csv(report)
        else:
            self.reply(_view(report, owner))

    def _owner(self, query: UsageQuery) -> str | None:
        """Return whose usage is asked for, None for everybody's; raise Forbidden."""
        name = self.caller.name
        if self.caller.is_admin:
            is_all = query.all or query.by is By.GROUP
            return query.owner or (None if is_all else name)
        if query.owner not in (None, name) or query.all:
            whose = "everybody" if query.all else query.owner
            raise Forbidden(f"{name} may not see the usage of {whose}, only their own")
        if query.by is By.GROUP:
            raise Forbidden(f"{name} may not see the usage of groups: it is for administrators")
        return name

    def _reply_csv(self, report: Report) -> None:
        self.set_header("Content-Type", f"{_CSV}; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="usage.csv"')
        self.finish(_csv_text(report))


def _view(report: Report, owner: str | None) -> UsageReport:
    return UsageReport(
        since=report.period.since,
        until=report.period.until,
        by=report.by,
        owner=owner,
        items=[_row(key, account) for key, account in report.items.items()],
        total=_row("", report.total),
    )


def _row(key: str, account: Account) -> UsageRow:
    held, busy = account.gpu_hours_held, account.gpu_seconds / 3600
    return UsageRow(
        key=key,
        leases=len(account.lease_ids),
        gpu_hours_held=held,
        gpu_hours_busy=busy,
        busy_percent=100 * busy / held if held else None,
        gpu_model_hours=account.model_hours_held,
        cpu_hours_held=account.cpu_hours_held,
        cpu_hours_used=account.cpu_seconds / 3600,
        gib_hours_held=account.gib_hours_held,
    )


def _csv_text(report: Report) -> str:
    """Return a line for each account; its first column is named for what it is by."""
    text = io.StringIO()
    lines = csv.writer(text)
    names = [name for name in UsageRow.model_fields if name != "key"]
    lines.writerow([report.by, *names])
    for key, account in report.items.items():
        row = _row(key, account)
        lines.writerow([_cell(key), *(_cell(getattr(row, name)) for name in names)])
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return " ".join(f"{name}={round(amount, _DIGITS)}" for name, amount in value.items())
    # What a spreadsheet would take for a formula is a name that somebody has chosen.
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value
