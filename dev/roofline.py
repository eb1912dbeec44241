"""Estimates, not measurements: `roofline.py` says how quick devices could be at best.

A frame or step takes at least as long as its operations at the peak rate of the unit
that does them, and as its bytes at the memory's bandwidth. Intersections and visible
Gaussians are counted on a scene, weights on a real training state; operations per pair
of Gaussian and pixel are counted by hand from `rasterizer/compositing.py`. XLA's own
cost analysis is of no use here: it counts one trip of each loop.

Two bounds are given. "fused" moves every row once and keeps pairs on the chip, as a
hand-written kernel can. "XLA" adds what the loops of compositing leave in memory
between two of their operations. Launches, loop trips, sorting networks and idle lanes
are in neither: real times are longer, by several times where much is small.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from bench_scenes import LEAVES, count_intersections, make_scene, shared_folder

from npga_jax.app import cli
from npga_jax.core import check_output, write_json
from npga_jax.training import PresetName

SIZES = ((550, 802), (1100, 1604))
COUNTS = (50_000, 250_000)


class Device(NamedTuple):
    """Peak rates of one chip."""

    vector: float  # float32 operations per second outside of matrix units
    matrix: float  # products of float32 matrices, exact (`core.exact_products`)
    bandwidth: float  # bytes per second


DEVICES = {
    "H100": Device(67e12, 67e12, 3.35e12),
    "H200": Device(67e12, 67e12, 4.8e12),
    "TPU v5e": Device(6.1e12, 197e12 / 6, 0.82e12),
    "TPU v6e": Device(7.2e12, 918e12 / 6, 1.64e12),
}
"""H100 and H200 SXM: NVIDIA's data sheets (float32). TPUs: Google's (bfloat16, of which
an exact product of float32 takes six; memory). Their vector units have no published
rate: 8 x 128 lanes, 4 operations each and cycle, at 1.5 and 1.75 GHz."""

FLOAT = 4  # bytes
EXP = 8  # operations that an exponential counts for
CHUNK = 16  # pairs of a pixel that the loops of compositing take at once
SORT_PASSES = 4  # of 8 bits, over keys of 32


class Work(NamedTuple):
    """What something costs."""

    vector: float = 0.0  # operations
    matrix: float = 0.0  # operations
    bytes: float = 0.0

    def plus(self, *others: "Work") -> "Work":
        return Work(*map(sum, zip(self, *others, strict=True)))


class Counts(NamedTuple):
    """Sizes of a frame."""

    num_gaussians: int
    num_isects: int  # pairs of Gaussian and tile
    tile_size: int
    width: int
    height: int
    channels: int = 3

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def pairs(self) -> int:
        """Pairs of Gaussian and pixel: all those of a tile that it touches.

        Few of them (about 16 %) are behind where a pixel is finished, and could be left
        out.
        """
        return self.num_isects * self.tile_size**2


@dataclasses.dataclass(frozen=True)
class RooflineConfig:
    """Estimate the shortest times of a frame and a training step on devices."""

    preset: PresetName = "quick"
    """Whose F and G the training step has; losses are those of quick."""
    bench_dir: Path | None = None
    """The shared benchmark, for its scene; default: ../shared/bench beside the
    repository."""
    output: Path | None = None
    """JSON file for the numbers."""


def main(cfg: RooflineConfig) -> None:
    check_output(cfg.output)
    rows = estimate(cfg, SIZES, COUNTS)
    print_table(rows)
    if cfg.output is not None:
        cfg.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(cfg.output, rows)
        print(f"wrote {cfg.output}")


def estimate(cfg: RooflineConfig, sizes, gaussians) -> list[dict[str, Any]]:
    """A row for each size, count and device; times in milliseconds."""
    rows = []
    for width, height in sizes:
        for num_gaussians in gaussians:
            name, counts = count_scene(cfg, num_gaussians, width, height)
            networks = network_macs(cfg.preset, num_gaussians)
            for device_name, device in DEVICES.items():
                rows.append(
                    {
                        "device": device_name,
                        "scene": name.split()[0],
                        "width": width,
                        "height": height,
                        "num_gaussians": num_gaussians,
                        "num_isects": counts.num_isects,
                        **times(counts, networks, device),
                    }
                )
    return rows


def count_scene(
    cfg: RooflineConfig, num_gaussians: int, width: int, height: int
) -> tuple[str, Counts]:
    """Counts of the scene that is there, as the rasterizer itself counts."""
    from npga_jax.rasterizer import Blocking

    folder = shared_folder(cfg.bench_dir)
    name, scene = make_scene(folder, num_gaussians, width, height)
    num_isects, tile_size = count_intersections(scene), Blocking().tile_size
    return name, Counts(len(scene[LEAVES[0]]), num_isects, tile_size, width, height)


class Networks(NamedTuple):
    """Multiplications with weights, per Gaussian; and floats between layers."""

    forward_macs: int  # of F
    forward_hidden: int
    forward_is_trained: bool
    detail_macs: int  # of G
    detail_hidden: int
    num_params: int  # trained floats per Gaussian


def network_macs(preset: PresetName, num_gaussians: int) -> Networks:
    """Counted on the shapes of a preset's training state."""
    from synthetic_step import CODE_LENGTH, step_config

    from npga_jax.training import default_method, state_template

    cfg = step_config(preset, num_gaussians)
    names = tuple(map(str, range(CODE_LENGTH)))
    params = state_template(cfg, default_method(cfg), names).params
    motion, detail = params.forward, params.detail

    def macs(*weights):
        return sum(w.shape[-2] * w.shape[-1] for w in weights)

    forward = [layer["w"] for layer in motion["layers"]] + [motion["out_w"]]
    if cfg.forward.tuned:
        forward.append(motion["features_w"])
    # G's basis is mixed by the code once, and is then one matrix.
    blended = detail["basis_w"]
    return Networks(
        forward_macs=macs(*forward),
        forward_hidden=sum(w.shape[-2] for w in forward),
        forward_is_trained=cfg.forward.tuned,
        detail_macs=macs(*(layer["w"] for layer in detail["layers"]), blended),
        detail_hidden=sum(w["w"].shape[-1] for w in detail["layers"]),
        num_params=sum(x.size for x in params.gaussians) // num_gaussians,
    )


def times(counts: Counts, networks: Networks, device: Device) -> dict[str, float]:
    """Lower bounds in milliseconds, and what sets that of the fused step."""
    fused_forward = binning(counts).plus(composite_forward(counts))
    fused_both = fused_forward.plus(composite_backward(counts))
    spilled_both = spill_forward(counts) + spill_backward(counts)
    rest = deform(counts, networks).plus(
        losses(counts), optimise(counts, networks.num_params)
    )
    programs = {
        "forward": (fused_forward, spill_forward(counts)),
        "forward_backward": (fused_both, spilled_both),
        "step": (fused_both.plus(rest), spilled_both),
    }
    row = {}
    for name, (work, spilled) in programs.items():
        row[f"{name}_fused_ms"] = 1e3 * bound(work, device)[0]
        xla = work._replace(bytes=work.bytes + spilled)
        row[f"{name}_xla_ms"] = 1e3 * bound(xla, device)[0]
    row["step_fused_limit"] = bound(programs["step"][0], device)[1]
    return row


def bound(work: Work, device: Device) -> tuple[float, str]:
    """Seconds of the slowest of the three, which at best run at the same time."""
    seconds = {
        "vector": work.vector / device.vector,
        "matrix": work.matrix / device.matrix,
        "memory": work.bytes / device.bandwidth,
    }
    limit = max(seconds, key=seconds.__getitem__)
    return seconds[limit], limit


def binning(c: Counts) -> Work:
    """Projection, depth order, tile lists."""
    row = 3 + 4 + 3 + 1 + c.channels  # read: a Gaussian
    packed = 6 + c.channels + 3  # written: its conic, opacity, colours, box and depth
    # Two passes of the exact depth order; one sort of the intersections; each pass of a
    # radix sort reads and writes its keys.
    sorted_keys = 2 * c.num_gaussians + c.num_isects
    sort_bytes = 2 * FLOAT * SORT_PASSES * sorted_keys
    # Expansion: the rank is scattered, spread and gathered, then three columns by rank.
    expansion = 8 * FLOAT * c.num_isects
    return Work(
        vector=250 * c.num_gaussians + 20 * c.num_isects,
        bytes=FLOAT * (row + packed) * c.num_gaussians + sort_bytes + expansion,
    )


def _alpha_operations() -> int:
    """Two differences, a quadratic form (9), exponential, threshold and clamp (4)."""
    return 2 + 9 + EXP + 4


def composite_forward(c: Counts) -> Work:
    """Each intersection's row is read once, each pixel written once."""
    blend = 4 + 2 * c.channels + 1  # weight, transmittance, the threshold; colours; sum
    return Work(
        vector=(_alpha_operations() + blend) * c.pairs,
        bytes=FLOAT * (1 + 6 + c.channels) * c.num_isects
        + FLOAT * (c.channels + 1) * c.pixels,
    )


def composite_backward(c: Counts) -> Work:
    """Alphas again, then gradients: rows are read, gradients added (read and written).

    The projection's gradient reads and writes each Gaussian's rows once more.
    """
    # Weight and transmittance (4), shade (2 F), what is behind (2), alpha's gradient
    # with a division (8), six moments (12), colours (3 F).
    per_pair = _alpha_operations() + 4 + 2 + 8 + 12 + 5 * c.channels
    row = 6 + c.channels
    return Work(
        vector=per_pair * c.pairs + 600 * c.num_gaussians,
        bytes=FLOAT * (1 + 3 * row) * c.num_isects
        + FLOAT * 2 * (c.channels + 1) * c.pixels
        + FLOAT * 3 * (row + 11) * c.num_gaussians,
    )


def spill_forward(c: Counts) -> float:
    """Bytes that XLA's loop moves beside: alphas, and its state for each chunk."""
    state = 2 * (2 + c.channels) / CHUNK
    return FLOAT * (2 + state) * c.pairs


def spill_backward(c: Counts) -> float:
    """Alphas, shades, weights and gradients of the power; weights once per channel."""
    state = 2 * 2 / CHUNK
    return FLOAT * (2 + 2 + 1 + c.channels + 2 + state) * c.pairs


def deform(c: Counts, networks: Networks) -> Work:
    """F and G; with a gradient, products three times, and hidden layers are kept."""
    n, trained = c.num_gaussians, 3 if networks.forward_is_trained else 1
    matrix = 2 * n * (trained * networks.forward_macs + 3 * networks.detail_macs)
    # Written and read by the next layer; again on the way back where there is one.
    floats = 2 * trained * networks.forward_hidden + 6 * networks.detail_hidden
    # Biases and rectifiers.
    vector = 4 * (networks.forward_hidden + networks.detail_hidden) * n
    return Work(vector=vector, matrix=matrix, bytes=FLOAT * floats * n)


def losses(c: Counts) -> Work:
    """L1, opacity and SSIM, whose four blurs have two passes of 11 taps; and gradients.

    The gradient of a blur is a blur again.
    """
    values = 3 * c.pixels
    taps = 2 * 2 * 11 * 4
    return Work(
        vector=(2 * taps + 60) * values,
        # Four moments, written and read by both passes, there and back.
        bytes=FLOAT * (2 * 2 * 2 * 4 + 12) * values + 6 * c.pixels,
    )


def optimise(c: Counts, num_params: int) -> Work:
    """Adam: parameter, gradient and two moments are read, all but one written."""
    floats = num_params * c.num_gaussians
    return Work(vector=15 * floats, bytes=FLOAT * 7 * floats)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Markdown."""
    print("Estimates in ms, fused kernels / XLA's loops; nothing here was measured.\n")
    print(
        "| image | Gaussians | intersections | device | forward | forward + backward | "
        "training step | the fused step is limited by |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        cells = (
            f"{row[f'{name}_fused_ms']:.2f} / {row[f'{name}_xla_ms']:.2f}"
            for name in ("forward", "forward_backward", "step")
        )
        print(
            f"| {row['width']}x{row['height']} | {row['num_gaussians'] // 1000}k | "
            f"{row['num_isects'] // 1000}k | {row['device']} | {' | '.join(cells)} | "
            f"{row['step_fused_limit']} |"
        )
    print(f"\nscene: {rows[0]['scene']}")


if __name__ == "__main__":
    cli.run(main, RooflineConfig)
