# The plots: medians on logarithmic axes, as SVG.
#
# A page may be light or dark, and an SVG in a README cannot know which.  So the
# background is transparent, and every colour, of text and lines alike, is one of
# middle lightness that stands out from white and from near-black.  Lines carry
# their names at their ends; no legend has to be matched by colour.
import math
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

TEXT = "#727b87"
COLOURS = {
    "restore": "#e0540a", "select1": "#7b838b", "rollback": "#2a8f63", "truncate": "#3b82d6", "dirty": "#a67a00", "delete": "#8b6fd6",
    "pg_restore": "#d6568c", "file_copy": "#178a97", "wal_log": "#6b8e23", "pytest_postgresql": "#a0785a",
    "testcontainers": "#5b7fa6", "django": "#c0605a", "django_flush": "#7f7fbf",
}
SHORT = {
    "restore": "testenv", "select1": "SELECT 1", "rollback": "ROLLBACK", "truncate": "TRUNCATE all + COPY", "dirty": "dirty tables by hand",
    "delete": "DELETE + COPY", "pg_restore": "pg_restore --clean", "file_copy": "template, FILE_COPY", "wal_log": "template, WAL_LOG",
    "pytest_postgresql": "pytest-postgresql", "testcontainers": "testcontainers-go", "django": "Django, with seed",
    "django_flush": "Django flush",
}
AXES = {
    "size": ("size.svg", "Reset, against the size of the database", "size of the database",
             lambda x: f"{x:g} MB" if x < 1024 else f"{x / 1024:g} GB"),
    "tables": ("tables.svg", "Reset, against the number of tables", "tables", lambda x: f"{x:g}"),
    "rows": ("rows.svg", "Reset, against the rows that the test changed", "changed rows", lambda x: f"{x:,.0f}"),
}


def milliseconds(value, _=None):
    if value >= 1000:
        return f"{value / 1000:g} s"
    return f"{value:g} ms"


def spread(ends, gap):
    """Places for labels whose lines end too close to each other: as near to their
    line as a distance of gap allows."""
    order = sorted(ends, key=lambda end: end[0])
    places = [place for place, _ in order]
    for _ in range(500):
        moved = False
        for i in range(len(places) - 1):
            lack = gap - (places[i + 1] - places[i])
            if lack > 1e-6:
                places[i] -= lack / 2
                places[i + 1] += lack / 2
                moved = True
        if not moved:
            break
    return {key: place for place, (_, key) in zip(places, order)}


def style(axes, figure):
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(TEXT)
    axes.tick_params(colors=TEXT, which="both", labelsize=10)
    axes.grid(True, axis="y", which="major", color=TEXT, alpha=0.3, linewidth=0.6)


def lines_of(results):
    """By method, the points (x, milliseconds) that have a figure."""
    lines = {}
    for result in results:
        if result.sample is not None:
            lines.setdefault(result.method.key, []).append((result.scenario.x, result.sample.median / 1e6))
    return {key: sorted(points) for key, points in lines.items()}


def label_ends(axes, lines, right, log_range, inches):
    """A label to the right of the axes for each line; a thin one leads there."""
    ends = [(math.log10(points[-1][1]), key) for key, points in lines.items()]
    places = spread(ends, 0.19 * log_range / inches)
    for key, points in lines.items():
        x, y = points[-1]
        place = 10 ** places[key]
        axes.plot([x, right], [y, place], color=COLOURS[key], linewidth=0.6, alpha=0.7, clip_on=False)
        axes.annotate(SHORT[key], (right, place), xytext=(4, 0), textcoords="offset points", va="center", color=COLOURS[key], fontsize=10,
                      fontweight="bold" if key == "restore" else "normal", annotation_clip=False)


def draw(group, results, subtitle, path):
    name, title, xlabel, xformat = AXES[group]
    lines = lines_of(results)
    if not any(len(points) > 1 for points in lines.values()):
        return None
    inches = 4.7
    figure, axes = pyplot.subplots(figsize=(9, 6.2))
    figure.subplots_adjust(left=0.1, right=0.74, top=0.86, bottom=0.12)
    style(axes, figure)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for key, points in lines.items():
        axes.plot(*zip(*points), color=COLOURS[key], linewidth=3 if key == "restore" else 1.6, marker="o",
                  markersize=6 if key == "restore" else 4, zorder=3 if key == "restore" else 2, clip_on=False)
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))
    axes.set_ylim(low, high)
    axes.set_xlim(xs[0], xs[-1])
    axes.xaxis.set_major_locator(matplotlib.ticker.FixedLocator(xs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: xformat(x)))
    axes.yaxis.set_major_formatter(FuncFormatter(milliseconds))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(xlabel, color=TEXT, fontsize=11)
    right = xs[-1] * (xs[-1] / xs[0]) ** 0.05
    label_ends(axes, lines, right, math.log10(high / low), inches)
    figure.text(0.02, 0.95, title, color=TEXT, fontsize=14, fontweight="bold")
    figure.text(0.02, 0.905, subtitle, color=TEXT, fontsize=10)
    figure.savefig(os.path.join(path, name), transparent=True, metadata={"Date": None})
    if os.environ.get("BENCH_PNG"):
        # for a look at how it reads on both backgrounds
        for colour in ("white", "#0d1117"):
            figure.savefig(os.path.join(path, f"{name[:-4]}-{'light' if colour == 'white' else 'dark'}.png"), facecolor=colour, dpi=80)
    pyplot.close(figure)
    return name


def draw_all(results, server, path):
    """The plots that the results are enough for; returns {group: file name}."""
    # text stays text, and two runs with the same figures give the same file
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "testenv", "font.family": "sans-serif",
                                "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"]})
    subtitles = {
        "size": f"20 tables, a test changes 20 rows in 5 of them; {server}, fsync off; medians",
        "tables": f"a test changes 20 rows in 5 tables; {server}, fsync off; medians",
        "rows": f"scattered over 20 tables; {server}, fsync off; medians",
    }
    drawn = {}
    for group in AXES:
        name = draw(group, [r for r in results if r.scenario.group == group], subtitles[group], path)
        if name:
            drawn[group] = name
    return drawn
