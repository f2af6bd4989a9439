"""When triggers fire, worked out without any of the service's code: by looking at every minute that there is.

Only the shapes that the tests use, and the rules for daylight saving that docs/schedules.md states.
"""

import datetime
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from clock import UTC

MINUTE = datetime.timedelta(minutes=1)
DAY = datetime.timedelta(days=1)
ZONES = ("UTC", "Europe/Rome", "America/New_York", "Asia/Kolkata")
NAMES = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


@dataclass
class Times:
    """Which minutes of the clock of a zone are meant; an empty set means all there are."""
    zone: str
    minute: int
    hours: frozenset = frozenset()
    weekdays: frozenset = frozenset()  # Monday is 0
    days: frozenset = frozenset()
    every_days: int = 1
    begins: datetime.datetime = None  # on the clock of the zone
    count: int = None
    left_out: frozenset = frozenset()
    every_hours: int = None  # counted from `begins`, in UTC
    properties: dict = field(default_factory=dict)

    def matches_day(self, day):
        if self.begins and (day - self.begins.date()).days % self.every_days:
            return False
        return (not self.weekdays or day.weekday() in self.weekdays) and (not self.days or day.day in self.days)

    def due(self, start, end):
        """Returns all instants from start to end, in order."""
        return sorted(at for at in self.instants(start, end) if start <= at <= end)

    def instants(self, start, end):
        zone = ZoneInfo(self.zone)
        if self.every_hours:
            at = self.begins.replace(tzinfo=UTC)
            while at <= end:
                yield at
                at += datetime.timedelta(hours=self.every_hours)
            return
        if not self.hours:
            # It follows the time that passes: whenever the clock shows the minute.
            at = start.replace(second=0, microsecond=0)
            while at <= end:
                shown = at.astimezone(zone)
                if shown.minute == self.minute and self.matches_day(shown.date()):
                    yield at
                at += MINUTE
            return
        day, found = start.astimezone(zone).date() - DAY, 0
        if self.begins:
            day = self.begins.date()
        while day <= end.astimezone(zone).date():
            for hour in sorted(self.hours):
                shown = datetime.datetime.combine(day, datetime.time(hour, self.minute))
                if not self.matches_day(day) or (self.begins and shown < self.begins):
                    continue
                found += 1
                if self.count and found > self.count:
                    return
                if shown not in self.left_out:
                    yield instant(shown, zone)
            day += DAY


def instant(shown, zone):
    """Returns when a clock shows a time: at its first showing, and at the instant of the jump where it is skipped."""
    at = shown.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == shown:
        return at
    # Python reads a time in the gap by the offset before it, which is an instant behind the jump.
    offset = at.astimezone(zone).utcoffset()
    while (at - MINUTE).astimezone(zone).utcoffset() == offset:
        at -= MINUTE
    return at


def draw(dice, start):
    """Draws a trigger: its times, with the properties that say so to the service."""
    zone = dice.choice(ZONES)
    minute, hour = dice.choice((0, 15, 30)), dice.choice((0, 1, 2, 2, 2, 3, 22))
    kind = dice.choices(("night", "week", "workdays", "twice", "hours", "month", "hour", "calendar"), (40, 15, 12, 8, 4, 5, 1, 15))[0]
    if kind == "calendar":
        return draw_calendar(dice, zone, minute, hour, start)
    weekday, day = dice.randrange(7), dice.randrange(11, 29)
    times, pattern = {
        "night": ({"hours": {hour}}, f"{minute} {hour} * * *"),
        "week": ({"hours": {hour}, "weekdays": {weekday}}, f"{minute} {hour} * * {(weekday + 1) % 7}"),
        "workdays": ({"hours": {hour}, "weekdays": set(range(5))}, f"{minute} {hour} * * mon-fri"),
        "twice": ({"hours": {2, 14}}, f"{minute} 2,14 * * *"),
        "hours": ({"hours": {0, 6, 12, 18}}, f"{minute} */6 * * *"),
        "month": ({"hours": {hour}, "days": {day}}, f"{minute} {hour} {day} * *"),
        "hour": ({}, f"{minute} * * * *"),
    }[kind]
    times = Times(zone, minute, **{name: frozenset(values) for name, values in times.items()})
    times.properties = {"format": "crontab", "pattern": pattern, "time_zone": zone}
    return times


def draw_calendar(dice, zone, minute, hour, start):
    kind = dice.choice(("daily", "weekly", "every-other", "counted", "hours"))
    local = start.astimezone(ZoneInfo(zone)).date() + DAY * dice.randrange(1, 4)
    begins = datetime.datetime.combine(local, datetime.time(hour, minute))
    at = f"BYHOUR={hour};BYMINUTE={minute};BYSECOND=0"
    properties = {"format": "calendar"}
    if kind == "daily":
        times, lines = Times(zone, minute, frozenset({hour})), [f"RRULE:FREQ=DAILY;{at}"]
        properties["time_zone"] = zone
    elif kind == "weekly":
        weekdays = frozenset(dice.sample(range(7), 2))
        times = Times(zone, minute, frozenset({hour}), weekdays)
        lines = [f"RRULE:FREQ=WEEKLY;BYDAY={','.join(NAMES[day] for day in sorted(weekdays))};{at}"]
        properties["time_zone"] = zone
    elif kind == "every-other":
        out = begins + 4 * DAY
        times = Times(zone, minute, frozenset({hour}), every_days=2, begins=begins, left_out=frozenset({out}))
        lines = [f"DTSTART;TZID={zone}:{begins:%Y%m%dT%H%M%S}", "RRULE:FREQ=DAILY;INTERVAL=2",
                 f"EXDATE;TZID={zone}:{out:%Y%m%dT%H%M%S}"]
    elif kind == "counted":
        count = dice.randrange(3, 12)
        times = Times(zone, minute, frozenset({hour}), begins=begins, count=count)
        lines = [f"DTSTART;TZID={zone}:{begins:%Y%m%dT%H%M%S}", f"RRULE:FREQ=DAILY;COUNT={count}"]
    else:
        times = Times("UTC", minute, begins=begins, every_hours=dice.choice((5, 7, 9)))
        lines = [f"DTSTART:{begins:%Y%m%dT%H%M%S}Z", f"RRULE:FREQ=HOURLY;INTERVAL={times.every_hours}"]
    properties["pattern"] = "\n".join(["BEGIN:VEVENT", *lines, "END:VEVENT"])
    times.properties = properties
    return times
