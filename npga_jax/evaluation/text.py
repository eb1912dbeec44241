"""What an evaluation says in words: its protocol, and its table."""

from collections.abc import Mapping
from typing import Any

from npga_jax.data import Capture, Split
from npga_jax.evaluation.comparison import ERROR_GAIN

_TITLES = {
    "novel_view": "novel view",
    "self_reenactment": "self-reenactment",
    "self_reenactment_zero_expression": "self-reenactment, expression zeroed",
}
_COLUMNS = ("psnr", "ssim", "lpips_alex", "lpips_vgg")
_REGIONS = ("head", "face", "full", "hair", "eyes", "mouth")


def describe_protocol(
    capture: Capture,
    split: Split,
    lpips_vgg_images: int,
    *,
    driven_by: str | None = None,
) -> dict[str, str]:
    """Says how the numbers were made, a sentence or two per choice."""
    held_out = ", ".join(sorted({c for v in split.novel_view for c in v.cameras}))
    unseen = ", ".join(sorted({v.timestep.sequence for v in split.self_reenactment}))
    seen = sorted({v.timestep.sequence for v in split.novel_view})
    num_cameras = len({c for v in split.self_reenactment for c in v.cameras})
    stride = capture.frame_stride
    frames = "every video frame" if stride == 1 else f"one in {stride} video frames"
    return {
        "images": (
            f"{capture.width} x {capture.height} pixels, {frames}; predictions are "
            "clipped to [0, 1] and not quantised to 8 bits."
        ),
        "novel_view": (
            f"Camera {held_out or 'none'}, never trained on, at all "
            f"timesteps of the training sequences ({', '.join(seen)})."
        ),
        "self_reenactment": (
            f"Sequence {unseen}, never trained on, from all {num_cameras} "
            f"cameras (the held-out one too), driven by the expression codes and head "
            f"poses of {driven_by or 'its own driving file'}."
            if unseen
            else "No sequence is held out."
        ),
        "zero_expression": (
            "self_reenactment_zero_expression is the same with each expression code "
            "replaced by zeros; the head poses stay."
        ),
        "background": (
            "The ground truth is composited on white with its matte, rgb * alpha + "
            "(1 - alpha); the prediction is rendered on white and keeps its own "
            "silhouette."
        ),
        "masks": (
            "Regions are labels of the ground truth's segmentation: head is face and "
            "hair without neck and torso, face is skin with ears, brows, eyes, nose, "
            "lips and mouth interior, full is the whole frame. An image without a "
            "pixel of a region does not count there (num_images)."
        ),
        "averaging": (
            "Every metric is computed per image and averaged over images, all with "
            "the same weight."
        ),
        "psnr": (
            "Over the region's own pixels and three channels together; identical "
            "images would score 100 dB."
        ),
        "psnr_white": (
            "Over the whole frame with both images painted white outside the region: "
            "higher than psnr by 10 log10(1 / share of the region)."
        ),
        "ssim": (
            "11 x 11 Gaussian window of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, zero "
            "padding; both images painted white outside the region, the map averaged "
            "over channels and the region's pixels."
        ),
        "lpips": (
            "LPIPS 0.1, images painted white outside the region, whole frame, "
            "[0, 1] mapped to [-1, 1]; lpips_alex on all images, lpips_vgg on "
            f"{lpips_vgg_images} images per split, evenly spread (fewer where a "
            "split has fewer)."
        ),
        "variants": (
            "Of full only. psnr_channelwise_3dgs: mean of three per-channel PSNRs. "
            "psnr_pooled16: PSNR of the error pooled over 16 consecutive frames of a "
            "camera, mean over pools. ssim_3dgs: zero padding (the same as ssim). "
            "ssim_reflect: reflect padding. lpips_alex_01: [0, 1] fed as it is, as "
            "in GaussianAvatars."
        ),
        "videos": (
            f"Truth, rendering, and mean absolute error times {ERROR_GAIN:g} in false "
            "colours; H.264 at crf 14."
        ),
    }


def format_table(result: Mapping[str, Any]) -> str:
    """Lays the numbers out as a Markdown table that also reads well in a terminal."""
    header = ["split", "region", "PSNR", "SSIM", "LPIPS alex", "LPIPS vgg", "images"]
    rows = []
    for name, title in _TITLES.items():
        for region in _REGIONS:
            entry = result.get(name, {}).get(region)
            if entry is None:
                continue
            cells = [_format_number(entry.get(key), key) for key in _COLUMNS]
            rows.append([title, region, *cells, str(entry["num_images"])])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        _format_row(header, widths),
        "|" + "|".join("-" * (w + 2) for w in widths) + "|",
        *(_format_row(row, widths) for row in rows),
        "",
        "PSNR in dB over the region's own pixels; higher is better for PSNR and SSIM, "
        "lower for LPIPS.",
    ]
    zeroed = result.get("self_reenactment_zero_expression")
    if zeroed is not None and zeroed["face"]["psnr"] is not None:
        worth = result["self_reenactment"]["face"]["psnr"] - zeroed["face"]["psnr"]
        lines.append(f"Zeroing the expression costs {worth:.2f} dB on the face.")
    lines += result["notes"]
    lines += [
        f"{result['num_gaussians']:,} Gaussians, {result['steps']:,} steps; seconds: "
        + ", ".join(f"{k} {v:.0f}" for k, v in result["seconds"].items()),
        "",
    ]
    return "\n".join(lines)


def _format_number(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if key == "psnr" else f"{value:.4f}"


def _format_row(cells: list[str], widths: list[int]) -> str:
    padded = [
        cell.ljust(w) if i < 2 else cell.rjust(w)
        for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"
