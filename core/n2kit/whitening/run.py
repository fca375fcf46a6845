"""Fitting with a run folder: RUN/bundle and RUN/result.json; the same command again says that it is finished."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.bundle import io as bundles
from n2kit.bundle.manifest import KIND, verify
from n2kit.data.image_digests import images_digest
from n2kit.errors import BadInput
from n2kit.utils.device import pick_device
from n2kit.utils.files import disk_full_guard, read_json, temporaries_of, write_json
from n2kit.utils.folders import ensure_outside_bundles, ensure_writable, go_on_hint
from n2kit.utils.locks import file_lock
from n2kit.whitening.fit import FittedModel, FittedVariant, Progress, fit

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.data.pairs import Pairs
    from n2kit.inputs.reader import OnBadImage
    from n2kit.utils.device import Precision

SAID = ("variant", "width", "on_bad_image", "precision")  # of a run, whose values are no digests
STATE, RESULT, LOCK, BUNDLE = "run.json", "result.json", "run.lock", "bundle"


@dataclass
class FitResult:
    """The fitted bundle, and how it came about: as in result.json and under `--json`.

    table: candidates, the best first, each with its cross-validated MRR. gains: over the best of every other kind.
    """

    bundle: str
    fingerprint: str
    width: int
    chosen: dict[str, Any]
    sentence: str
    reason: str
    mrr: float | None
    table: list[dict[str, Any]]
    gains: list[dict[str, Any]]
    queries: int
    pool: int
    items: dict[str, int]
    skipped: dict[str, str]
    seconds: float
    cpu_seconds: float
    done_before: bool = False


def fit_bundle(
    bundle: Path,
    items: Items,
    pairs: Pairs | None,
    folder: Path,
    *,
    val_pairs: Pairs | None = None,
    images: Path | None = None,
    variant: FittedVariant = "late_whitened",
    width: int | None = None,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    device: str | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Fit a bundle on pairs into `folder/bundle`.

    Raises:
        BadInput: the folder is another run's, or in use; what `fit` raises.
    """
    manifest = bundles.read_manifest(bundle)
    run: dict[str, Any] = {
        "command": "fit",
        "bundle": manifest.fingerprint,
        "items": items.digest(),
        "images": images_digest(items, images),
        "pairs": pairs.digest() if pairs else None,
        "val_pairs": val_pairs.digest() if val_pairs else None,
        "variant": variant,
        "width": width,
        "on_bad_image": on_bad_image,
        "precision": precision,
    }
    run["run"] = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
    _ensure_own(folder)
    with (
        disk_full_guard(f"{folder} cannot be written", "free some space; the same command goes on"),
        file_lock(folder / LOCK, str(folder)),
    ):
        if (done := _finished(folder, run)) is not None:
            return done
        ensure_writable(folder / BUNDLE, KIND, force=True)  # the bundle comes at the end
        write_json(folder / STATE, run)
        model = bundles.load(bundle).to(pick_device(device))
        made = fit(
            model, items, pairs, val_pairs=val_pairs, images=images, variant=variant, width=width,
            on_bad_image=on_bad_image, precision=precision, progress=progress,
        )  # fmt: skip
        result = _result(made, folder)
        counts = {"items": len(items), "pairs": len(pairs or ()), "val_pairs": len(val_pairs or ())}
        about = {name: getattr(result, name) for name in ("chosen", "mrr", "reason", "sentence")}
        facts = {"fit": about, "run": run, "data": counts}
        saved = bundles.save(made.model.cpu(), folder / BUNDLE, trained=facts, force=True)
        result.fingerprint, result.width = saved.fingerprint, saved.width
        write_json(folder / RESULT, asdict(result))
    return result


def _result(made: FittedModel, folder: Path) -> FitResult:
    chosen = made.selection
    return FitResult(
        bundle=str(folder / BUNDLE),
        fingerprint="",
        width=made.model.width,
        chosen=asdict(chosen.chosen),
        sentence=chosen.sentence(),
        reason=chosen.reason,
        mrr=chosen.table[0].mrr if chosen.table else None,
        table=[asdict(scored.candidate) | {"mrr": scored.mrr} for scored in chosen.table],
        gains=[asdict(gain) for gain in chosen.gains],
        queries=chosen.queries,
        pool=chosen.pool,
        items=made.items,
        skipped=made.skipped,
        seconds=round(made.seconds, 2),
        cpu_seconds=round(made.cpu_seconds, 2),
    )


def _ensure_own(folder: Path) -> None:
    """Make the folder, unless it is there and no run's.

    Raises:
        BadInput: it is something else.
    """
    ensure_outside_bundles(folder)
    state = folder / STATE
    first = {folder / LOCK, *temporaries_of(state)}  # which a process that was killed may leave
    if not state.is_file() and folder.exists() and not (folder.is_dir() and {*folder.iterdir()} <= first):
        raise BadInput(f"{folder} exists and is no run folder", "give another -o")
    folder.mkdir(parents=True, exist_ok=True)


def _finished(folder: Path, run: dict[str, Any]) -> FitResult | None:
    """Read the result of this very run, if it is there.

    Raises:
        BadInput: the folder holds another run, or its bundle is damaged.
    """
    saved = read_json(folder / STATE) if (folder / STATE).is_file() else {}
    if saved and saved.get("run") != run["run"] and ((folder / RESULT).exists() or saved.get("command") != "fit"):
        names = [k for k in run if k not in ("run", "command") and saved.get(k) != run[k]]
        differs = ", ".join(f"{k} ({saved.get(k)}, now {run[k]})" if k in SAID else k for k in names)
        what = f"another {differs}" if saved.get("command") == "fit" else "a training"
        raise BadInput(f"{folder} is run {saved.get('run')}, and this is run {run['run']}: {what}", go_on_hint(folder))
    if not (folder / RESULT).is_file():
        return None
    try:
        result = FitResult(**read_json(folder / RESULT) | {"done_before": True, "bundle": str(folder / BUNDLE)})
        verify(folder / BUNDLE, bundles.read_manifest(folder / BUNDLE), bundles.read_recipe(folder / BUNDLE))
    except (BadInput, TypeError) as problem:
        said = problem.message if isinstance(problem, BadInput) else f"{folder / RESULT}: {problem}"
        raise BadInput(said, f"remove {folder / RESULT}, and the same command finishes the run") from None
    return result
