"""Draw docs/findings.svg from the tables of docs/results-tables.md: `python docs/make_chart.py`."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
PANELS = {  # what is drawn: a panel's title → (its section, [(arm in the table, label)])
    "Drawings: 478 queries, 610 items": (
        "Drawings",
        [
            ("`whitened`, Qwen and CLIP", "n2kit fit, Qwen and CLIP"),
            ("`concat-std`, Qwen and CLIP", "both side by side, Qwen and CLIP"),
            ("`vision-linear`, CLIP", "linear head on CLIP"),
            ("`vision`, CLIP", "CLIP alone"),
            ("`whitened`, Qwen and DINOv2", "n2kit fit, Qwen and DINOv2"),
            ("`sum`, Qwen and DINOv2", "linear heads on Qwen and DINOv2"),
            ("`only_late_fusion`, 400 steps, SmolLM2 and CLIP", "the gate, SmolLM2 and CLIP"),
            ("`notellm2`, SmolLM2 and CLIP", "notellm2, SmolLM2 and CLIP"),
        ],
    ),
    "Photographs: 166 queries, 413 items": (
        "Photographs",
        [
            ("`whitened`, SmolLM2 and CLIP", "n2kit fit, SmolLM2 and CLIP"),
            ("`concat-std`, SmolLM2 and CLIP", "both side by side, SmolLM2 and CLIP"),
            ("`concat`, SmolLM2 and CLIP", "linear head on SmolLM2 and CLIP"),
            ("`vision`, CLIP", "CLIP alone"),
            ("`whitened`, SmolLM2 and DINOv2", "n2kit fit, SmolLM2 and DINOv2"),
            ("`concat`, SmolLM2 and DINOv2", "linear head on SmolLM2 and DINOv2"),
            ("`only_late_fusion`, 400 steps, SmolLM2 and CLIP", "the gate, SmolLM2 and CLIP"),
            ("`notellm2`, SmolLM2 and CLIP", "notellm2, SmolLM2 and CLIP"),
        ],
    ),
}
JOINED = ("the gate", "notellm2")  # how labels of joined models that were trained begin
ROW, LEFT, WIDE, TOP = 26, 330, 440, 34


def main() -> None:
    (DOCS / "findings.svg").write_text(chart((DOCS / "results-tables.md").read_text("utf8")), "utf8")


def chart(page: str) -> str:
    """Draw recall@10 of each arm, with its 95 % interval."""
    drawn, y = [], 8
    for title, (section, arms) in PANELS.items():
        text = page.partition(f"\n### {section}\n")[2].partition("\n### ")[0]
        drawn.append(f'<text x="8" y="{y + 16}" font-weight="600" font-size="15">{escape(title)}</text>')
        y += TOP
        for arm, label in arms:
            low, value, high = recall_at_10(text, arm)
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
    """Read an arm's recall@10 and its interval from a table: `63.2 ± 3.9`."""
    (row,) = re.findall(rf"^\| {re.escape(arm)} \|(.*)\|$", text, re.M)
    head = re.findall(r"^\| arm \|(.*)\|$", text, re.M)[0].split("|")
    column = [name.strip() for name in head].index("recall@10")
    value, half = (float(number) for number in row.split("|")[column].split(" ± "))
    return value - half, value, min(100.0, value + half)


def _bar(y: int, label: str, low: float, value: float, high: float) -> list[str]:
    scale, middle = WIDE / 100, y + ROW / 2 - 3
    colour = "#12805c" if "n2kit fit" in label else "#3157d5" if label.startswith(JOINED) else "#9aa7ba"
    return [
        f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end" fill="#1c2430">{escape(label)}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{scale * value:.1f}" height="{ROW - 8}" rx="3" fill="{colour}"/>',
        f'<path d="M{LEFT + scale * low:.1f} {middle}H{LEFT + scale * high:.1f}" stroke="#1c2430" stroke-width="1.5"/>',
        f'<text x="{LEFT + scale * high + 6:.1f}" y="{middle + 4}" fill="#1c2430">{value:.1f}</text>',
    ]


if __name__ == "__main__":
    main()
