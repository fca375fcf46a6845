"""The queries of a mining, in SQL that DuckDB and Spark read alike.

From events (u, i, t, w, v, c: user, item, microseconds, weight, is a view, is a click) to pairs (a, b, s, n: two items, the sum of
the users' weights, the number of users), to scores. Sums are of decimals, so that no order of rows changes a score.
"""

from __future__ import annotations

from collections.abc import Mapping

from n2kit.mining.settings import MICRO, MineSettings

DECIMAL = "DECIMAL(18, 12)"
SWING_ALPHA, USER_ALPHA, USER_BETA = 1.0, 5.0, 0.35


def placed_events(events: str, settings: MineSettings) -> str:
    """Write the query of events, equal ones once; `back`: their place from the end of the user's; `same`: how many were equal."""
    either = "true" if settings.undirected else "{}"
    flags = ", ".join(f"bool_or({either.format(name)}) AS {name}" for name in ("v", "c"))
    return f"""
        SELECT *, row_number() OVER (PARTITION BY u ORDER BY t DESC, i DESC) AS back
        FROM (SELECT u, i, t, max(w) AS w, {flags}, count(*) AS same FROM {events} GROUP BY u, i, t) AS merged"""


def kept_events(placed: str, settings: MineSettings) -> str:
    """Write the query of each user's latest events."""
    return f"SELECT * FROM {placed} WHERE back <= {settings.max_events}"


def sized_events(kept: str) -> str:
    """Write the query of events with `n`, the size of their user's click set."""
    return f"""
        SELECT kept.u, kept.i, kept.t, kept.w, kept.v, kept.c, kept.back, users.n
        FROM {kept} AS kept JOIN (
            SELECT u, count(DISTINCT CASE WHEN c THEN i END) AS n FROM {kept} GROUP BY u
        ) AS users ON kept.u = users.u"""


def user_items(events: str) -> str:
    """Write the query of each user's items: the first view, the last click, the largest weight of a click."""
    return f"""
        SELECT u, i, n, min(CASE WHEN v THEN t END) AS tv, max(CASE WHEN c THEN t END) AS tc, max(CASE WHEN c THEN w END) AS w
        FROM {events} GROUP BY u, i, n"""


def popularity(items_of_users: str) -> str:
    """Write the query of each item's users who viewed it (nv) and who clicked it (nc)."""
    return f"SELECT i, count(tv) AS nv, count(tc) AS nc FROM {items_of_users} GROUP BY i"


def user_pairs(events: str, items_of_users: str, settings: MineSettings, where: str = "true") -> str:
    """Write the query of pairs by co-occurrence: for each user once, who viewed `a` and then clicked `b`."""
    if not settings.by_event:
        weight = "greatest(x.w, y.w)" if settings.undirected else "y.w"
        order = "true" if settings.undirected else "x.tv < y.tc"
        share = _share(weight, settings)
        return f"""
            SELECT x.i AS a, y.i AS b, sum({share}) AS s, count(*) AS n
            FROM {items_of_users} AS x JOIN {items_of_users} AS y ON x.u = y.u AND x.i <> y.i
            WHERE {order} AND {where} GROUP BY x.i, y.i"""
    between = "y.t - x.t" if not settings.undirected else "abs(y.t - x.t)"
    places = "x.back - y.back" if not settings.undirected else "abs(x.back - y.back)"
    tests = ["x.v", "y.c"] if settings.undirected else ["x.v", "y.c", "y.t > x.t"]
    if settings.window is not None:
        tests.append(f"{between} <= {round(settings.window * MICRO)}")
    if settings.gap is not None:
        tests.append(f"{places} <= {settings.gap}")
    weight = "greatest(x.w, y.w)" if settings.undirected else "y.w"
    if settings.half_life is not None:
        weight += f" * pow(0.5, ({between}) / {settings.half_life * MICRO!r})"
    return f"""
        SELECT a, b, sum({_share("w", settings, "n")}) AS s, count(*) AS n FROM (
            SELECT x.u AS u, x.i AS a, y.i AS b, max(x.n) AS n, max({weight}) AS w
            FROM {events} AS x JOIN {events} AS y ON x.u = y.u AND x.i <> y.i
            WHERE {" AND ".join(tests)} AND {where} GROUP BY x.u, x.i, y.i
        ) AS once GROUP BY a, b"""


def _share(weight: str, settings: MineSettings, size: str = "x.n") -> str:
    """Write what a user adds to a pair's sum."""
    if settings.score == "paper":
        return f"CAST({weight} / CAST({size} AS DOUBLE) AS {DECIMAL})"
    return f"CAST({weight if settings.score == 'count' else '1'} AS {DECIMAL})"


def swing_users(items_of_users: str, settings: MineSettings, key: str = "md5(u)") -> str:
    """Write the query of each item's users, at most `max_users` of them, drawn by a hash."""
    return f"""
        SELECT u, i, n FROM (
            SELECT u, i, n, row_number() OVER (PARTITION BY i ORDER BY {key}, u) AS place FROM {items_of_users}
        ) AS drawn WHERE place <= {settings.max_users}"""


def swing_meetings(users: str, where: str = "true") -> str:
    """Write the query of items that two users share: (u, v, i), with the sizes of both users' sets."""
    return f"""
        SELECT x.u AS u, y.u AS v, x.i AS i, x.n AS nu, y.n AS nv
        FROM {users} AS x JOIN {users} AS y ON x.i = y.i AND x.u < y.u WHERE {where}"""


def swing_pairs(meetings: str, settings: MineSettings) -> str:
    """Write the query of pairs by swing: two users who share few other items say more about two that they share."""
    sign = "" if settings.alink else "-"
    weight = " * ".join(f"pow({USER_ALPHA} + x.{n}, {sign}{USER_BETA})" for n in ("nu", "nv"))
    share = f"CAST({weight} / ({SWING_ALPHA} + k.k) AS {DECIMAL})"
    return f"""
        SELECT x.i AS a, y.i AS b, sum({share}) AS s, count(*) AS n
        FROM {meetings} AS x JOIN {meetings} AS y ON x.u = y.u AND x.v = y.v AND x.i <> y.i
        JOIN (SELECT u, v, count(*) AS k FROM {meetings} GROUP BY u, v) AS k ON x.u = k.u AND x.v = k.v
        GROUP BY x.i, y.i"""


def scored(pairs: str, popular: str, users: str, settings: MineSettings) -> str:
    """Write the query of scores: (a, b, score, n) out of the sums of pairs."""
    together, apart = "CAST(p.n AS DOUBLE)", "CAST(x.nv AS DOUBLE) * y.nc"
    shares = f"pow({together} / {users}, {settings.power!r}) * {users} * {users} / ({apart})"
    score = {
        "jaccard": f"{together} / (x.nv + y.nc - p.n)",
        "lift": f"{together} * {users} / ({apart})",
        "pmi": f"ln({shares})" if settings.power == 1 else shares,  # of k = 2 and more, the logarithm is never above 0
    }.get(settings.score, "round(CAST(p.s AS DOUBLE), 9)")  # three thirds are a whole
    if settings.score not in ("jaccard", "lift", "pmi"):
        return f"SELECT p.a, p.b, {score} AS score, p.n FROM {pairs} AS p"
    return f"""
        SELECT p.a, p.b, {score} AS score, p.n
        FROM {pairs} AS p JOIN {popular} AS x ON p.a = x.i JOIN {popular} AS y ON p.b = y.i"""


def within_bounds(settings: MineSettings) -> str:
    """Write the test of a score's bounds; one of 0 or less is of no items that belong together."""
    tests = ["score > 0", f"n >= {settings.min_users}"]
    tests += [f"score >= {settings.lower!r}"] if settings.lower is not None else []
    tests += [f"score <= {settings.upper!r}"] if settings.upper is not None else []
    return " AND ".join(tests)


def top(scores: str, settings: MineSettings) -> str:
    """Write the query of the best targets of each item, within the bounds."""
    return f"""
        SELECT a, b, score, n FROM (
            SELECT *, row_number() OVER (PARTITION BY a ORDER BY score DESC, b) AS place
            FROM {scores} AS scored WHERE {within_bounds(settings)}
        ) AS placed WHERE place <= {settings.top}"""


def sql_of(
    settings: MineSettings, columns: Mapping[str, str] | None = None, *, table: str = "events", dialect: str = "spark"
) -> str:
    """Write the whole mining as one query of a table of events, for Spark on a cluster; it gives query, target, score.

    Args:
        columns: field → column of the table: user, item, time, and type and weight where there are such.
    """
    settings.check()
    tick = "`" if dialect == "spark" else '"'
    text, micros = ("STRING", "unix_micros") if dialect == "spark" else ("VARCHAR", "epoch_us")
    names = {
        field: f"{tick}{name}{tick}"
        for field, name in (columns or {"user": "user", "item": "item", "time": "time"}).items()
    }
    kind = f"trim(CAST({names['type']} AS {text}))" if "type" in names else "''"
    used = [*settings.view, *settings.click]
    moment = _moment(names["time"], text, micros) if "time" in names else "CAST(0 AS BIGINT)"
    weight = f"TRY_CAST({names['weight']} AS DOUBLE)" if "weight" in names else "CAST(1 AS DOUBLE)"
    raw = f"""
        SELECT trim(CAST({names["user"]} AS {text})) AS u, trim(CAST({names["item"]} AS {text})) AS i, {moment} AS t, {weight} AS w,
            {_of_type(kind, settings.view, used)} AS v, {_of_type(kind, settings.click, used)} AS c
        FROM {table} WHERE {_of_type(kind, used, used)}"""
    steps = {
        "raw_events": raw,
        "cleaned": "\n        SELECT * FROM raw_events WHERE u <> '' AND i <> '' AND t IS NOT NULL AND w > 0",
        "placed": placed_events("cleaned", settings),
        "kept": "\n        " + kept_events("placed", settings),
        "sized": sized_events("kept"),
        "user_items": user_items("sized"),
        "popular": "\n        " + popularity("user_items"),
    }
    if settings.score == "swing":
        steps["drawn"] = swing_users("user_items", settings)
        steps["meetings"] = swing_meetings("drawn")
        steps["pairs"] = swing_pairs("meetings", settings)
    else:
        steps["pairs"] = user_pairs("sized", "user_items", settings)
    steps["scored"] = (
        "\n        " + scored("pairs", "popular", "(SELECT count(DISTINCT u) FROM user_items)", settings).strip()
    )
    steps["best"] = top("scored", settings)
    written = ",\n".join(f"    {name} AS ({query}\n    )" for name, query in steps.items())
    return f"WITH\n{written}\nSELECT a AS query, b AS target, score FROM best ORDER BY query, score DESC, target\n"


def _of_type(kind: str, types: tuple[str, ...] | list[str], every: list[str]) -> str:
    chosen = ", ".join("'" + one.replace("'", "''") + "'" for one in types or every)
    return f"{kind} IN ({chosen})" if every else "true"


def _moment(name: str, text: str, micros: str) -> str:
    """Write the microseconds of a time: a number in the unit that makes it a moment of our days, or a date."""
    number = f"TRY_CAST(CAST({name} AS {text}) AS DOUBLE)"
    scales = (("1e11", f"{MICRO}"), ("1e14", "1e3"), ("1e17", "1e0"))
    cases = " ".join(f"WHEN abs({number}) < {bound} THEN CAST({number} * {scale} AS BIGINT)" for bound, scale in scales)
    return (
        f"CASE {cases} WHEN {number} IS NOT NULL THEN CAST({number} / 1e3 AS BIGINT) "
        f"ELSE {micros}(TRY_CAST(CAST({name} AS {text}) AS TIMESTAMP)) END"
    )
