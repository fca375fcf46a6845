"""Draw docs/findings.svg from the tables of docs/results-tables.md: `python docs/make_chart.py`."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
PANELS = {  # what is drawn: a panel's title → (its section, [(arm in the tables, label)])
    "Drawings: 478 queries, 610 items": (
        "What came out",
        [
            ("linear head on CLIP", "linear head on CLIP"),
            ("CLIP alone, untrained", "CLIP alone, untrained"),
            ("SmolLM2 and DINOv2", "whitened, SmolLM2 and DINOv2 (n2kit fit)"),
            ("notellm2, CLIP", "notellm2, CLIP, 24 steps"),
            ("linear head on SmolLM2 and DINOv2", "linear head on SmolLM2 and DINOv2"),
            ("basic, CLIP", "basic, CLIP, 24 steps"),
            ("text_only", "text_only, 24 steps"),
        ],
    ),
    "Photographs: 166 queries, 413 items": (
        "Photographs",
        [
            ("SmolLM2 and CLIP", "whitened, SmolLM2 and CLIP (n2kit fit)"),
            ("linear head on SmolLM2 and CLIP", "linear head on SmolLM2 and CLIP"),
            ("CLIP alone, untrained", "CLIP alone, untrained"),
            ("only_late_fusion, CLIP", "only_late_fusion, CLIP, 24 steps"),
            ("basic, CLIP", "basic, CLIP, 24 steps"),
            ("notellm2, CLIP", "notellm2, CLIP, 24 steps"),
            ("text_only", "text_only, 24 steps"),
        ],
    ),
}
FITTED = {
    "Drawings": "drawings: fitted on",
    "Photographs": "photographs: fitted on",
}  # heads of the tables of fitted models
ROW, LEFT, WIDE, TOP = 26, 330, 440, 34


def main() -> None:
    (DOCS / "findings.svg").write_text(chart((DOCS / "results-tables.md").read_text("utf8")), "utf8")


def chart(page: str) -> str:
    """Draw recall@10 of each arm, with its 95 % interval."""
    drawn, y = [], 8
    for title, (section, arms) in PANELS.items():
        text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        fitted = page.partition(f"| {FITTED[title.partition(':')[0]]} |")[2].partition("\n\n")[0]
        drawn.append(f'<text x="8" y="{y + 16}" font-weight="600" font-size="15">{escape(title)}</text>')
        y += TOP
        for arm, label in arms:
            low, value, high = recall_at_10(fitted if "n2kit fit" in label else text, arm)
            drawn += _bar(y, label, low, value, high)
            y += ROW
        y += 14
    for percent in range(0, 101, 20):
        x = LEFT + WIDE * percent / 100
        drawn.insert(0, f'<path d="M{x} 36V{y - 10}" stroke="#e3e8ef"/>')
        drawn.append(f'<text x="{x}" y="{y + 6}" text-anchor="middle" fill="#647083">{percent}</text>')
    drawn.append(
        f'<text x="{LEFT + WIDE / 2}" y="{y + 28}" text-anchor="middle" fill="#647083">recall@10, %, with 95 % intervals</text>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 830 {y + 38}" role="img" font-family="system-ui, sans-serif" font-size="13">'
        "<title>Recall at 10 of joined models, fitted models and baselines, on drawings and on photographs</title>"
        f'<rect width="830" height="{y + 38}" fill="#fff"/>'
    )
    return "\n".join([head, *drawn, "</svg>\n"])


def recall_at_10(text: str, arm: str) -> tuple[float, float, float]:
    """Read an arm's recall@10 and its interval from a table: `63.2 ± 3.9`, or `**55.3** (51.3 to 59.3)`."""
    (row,) = re.findall(rf"^\| {re.escape(arm)} \|(.*)\|$", text, re.M)
    cells = [cell.strip() for cell in row.split("|")]
    if fitted := re.match(r"\*\*([\d.]+)\*\* \(([\d.]+) to ([\d.]+)\)", cells[0]):
        return float(fitted[2]), float(fitted[1]), float(fitted[3])
    head = [c.strip() for c in re.findall(r"^\| arm \|(.*)\|$", text, re.M)[0].split("|")]
    column = next(n for n, name in enumerate(head) if name in ("@10", "recall@10"))
    value, half = (float(number) for number in cells[column].split(" ± "))
    return value - half, value, min(100.0, value + half)


def _bar(y: int, label: str, low: float, value: float, high: float) -> list[str]:
    scale, middle = WIDE / 100, y + ROW / 2 - 3
    colour = "#12805c" if "n2kit fit" in label else "#3157d5" if "steps" in label else "#9aa7ba"
    return [
        f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end" fill="#1c2430">{escape(label)}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{scale * value:.1f}" height="{ROW - 8}" rx="3" fill="{colour}"/>',
        f'<path d="M{LEFT + scale * low:.1f} {middle}H{LEFT + scale * high:.1f}" stroke="#1c2430" stroke-width="1.5"/>',
        f'<text x="{LEFT + scale * high + 6:.1f}" y="{middle + 4}" fill="#1c2430">{value:.1f}</text>',
    ]


if __name__ == "__main__":
    main()
