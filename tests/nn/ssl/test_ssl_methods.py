"""Methods: each learns one batch by heart, elevation is really apart, windows decide for themselves, bad input."""

import math
import subprocess
import sys
import types
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from covermap.core.errors import ConfigError, DataError
from covermap.core.pretrain_config import ClipConfig, DinoConfig, GlcnetConfig, MaeConfig, SimclrConfig, ViewConfig
from covermap.core.types import Batch, Features, InputSpec, SensorInput
from covermap.nn.backbones.plain_vit import PlainViT
from covermap.nn.build import make_backbone
from covermap.nn.model import Backbone
from covermap.nn.ssl.build import build_method
from covermap.nn.ssl.contrast import coarse
from covermap.nn.ssl.monitors import retrieval

SIZE, NUM = 32, 8
SEEDS = list(range(NUM))
OPTICAL, RADAR = ("blue", "green", "red", "nir"), ("vv", "vh")


def spec(*sensors):
    bands = {"sentinel2": OPTICAL, "sentinel1": RADAR, "dem": ("elevation",), "other": ("a",)}
    zeros, ones = ((value,) * 4 for value in (0.0, 1.0))
    return InputSpec(
        tuple(SensorInput(s, bands[s], zeros[: len(bands[s])], ones[: len(bands[s])]) for s in sensors), 10, SIZE
    )


def windows(*sensors, num=NUM):
    """Each window a pattern of its own, which all its sensors see in part."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(num, 4, 5, 5, generator=generator)
    ground = nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic")[:, None]
    ground = ground + 0.2 * torch.randn(ground.shape, generator=generator)
    image = {}
    for entry in spec(*sensors).sensors:
        num_bands = len(entry.bands)
        mix = torch.randn(num_bands, 4, generator=generator)
        image[entry.sensor] = torch.einsum("ij,btjhw->btihw", mix, ground).contiguous()
    return Batch(image, torch.ones(num, 1, SIZE, SIZE, dtype=torch.bool), dates=((None,),) * num)


class TwoEyed(Backbone):
    """A stem for each sensor, so that any may be absent, and one small network."""

    fuses = True

    def __init__(self, spec, width=32):
        super().__init__()
        self.stems = nn.ModuleDict({e.sensor: nn.Conv2d(len(e.bands), width, 4, 4) for e in spec.sensors})
        self.layers = nn.Sequential(nn.GELU(), nn.Conv2d(width, width, 3, 2, 1), nn.GELU(), nn.Conv2d(width, width, 1))
        self.channels, self.strides = (width,), (8,)
        self.optional = frozenset(self.stems)

    def forward(self, batch):
        stems = [self.stems[name](x[:, 0]) for name, x in batch.image.items()]
        return Features((self.layers(torch.stack(stems).mean(0)),), self.strides)


def encoder_of(sensors, name="unet"):
    if name == "unet":
        return make_backbone("unet", spec(*sensors), {"widths": [8, 16, 32]})
    return TwoEyed(spec(*sensors))


def method_of(config, sensors, *, others=(), backbone="unet", views=None):
    torch.manual_seed(0)
    return build_method(
        config, views or ViewConfig(), encoder_of(sensors, backbone), spec(*sensors, *others), tuple(sensors), SIZE
    )


def train(method, batch, steps, *, lr=1e-3, share=0.0):
    """Terms of each step, until the loss is that share of the first; views are the same in all."""
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr)
    history = []
    method.train()
    for step in range(steps):
        method.before_step(step / steps)
        terms = method(batch, SEEDS)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        method.after_step(step / steps)
        history.append({name: float(value.detach()) for name, value in terms.items()})
        if history[-1]["loss"] < share * history[0]["loss"]:
            break
    return history


CONTRAST = {
    "simclr": (SimclrConfig(), ("sentinel2",), (), "unet"),
    "glcnet": (GlcnetConfig(region_px=8), ("sentinel2",), (), "unet"),
    "glcnet+dem": (GlcnetConfig(region_px=8, elevation="dem", alpha=0.3), ("sentinel2",), ("dem",), "unet"),
    "clip": (ClipConfig(), ("sentinel2", "sentinel1"), (), TwoEyed),
}


@pytest.mark.parametrize("name", ["simclr", "glcnet", "glcnet+dem", "clip"])
def test_contrast_learns_a_batch_by_heart(name):
    config, sensors, others, backbone = CONTRAST[name]
    history = train(
        method_of(config, sensors, others=others, backbone=backbone), windows(*sensors, *others), 150, share=0.5
    )
    print(name, len(history), history[0], history[-1])
    assert history[-1]["loss"] <= 0.5 * history[0]["loss"]


@pytest.mark.parametrize(
    ("centring", "backbone"), [("mean", TwoEyed), pytest.param("sinkhorn", "unet", marks=pytest.mark.slow)]
)
def test_dino_comes_near_a_teacher_that_has_not_collapsed(centring, backbone):
    # A teacher of 0.996 hardly moves in 150 steps, and a random one has little to tell; at 0.07 it tells even less.
    config = DinoConfig(
        prototypes=64, centring=centring, local_views=2, momentum=0.95, teacher_temperature=(0.04, 0.04)
    )
    method = method_of(config, ("sentinel2",), backbone=backbone)
    history = train(method, windows("sentinel2"), 150)
    first, last = history[0], history[-1]
    assert method.floors == {"prototype_entropy": pytest.approx(0.1 * math.log(64)), "information": 0.02}
    method.before_step(0.1)
    assert "information" not in method.floors  # a teacher begins with an even answer
    floor = method.floors["prototype_entropy"]
    assert first["loss"] == pytest.approx(first["kl"] + first["teacher_entropy"], abs=1e-5)
    assert last["kl"] <= 0.2 * first["kl"]
    assert min(each["teacher_entropy"] for each in history) > floor
    assert min(each["prototype_entropy"] for each in history) > floor
    assert last["information"] > 0.5  # an even answer to all is followed as well


def state(method):
    return {name: x.clone() for name, x in method.state_dict().items() if not name.startswith("regressor")}


@pytest.mark.parametrize("kind", [SimclrConfig, GlcnetConfig])
def test_without_elevation_and_with_a_weight_of_0_all_is_the_same_to_the_bit(kind):
    batch = windows("sentinel2", "dem")
    extra = {"region_px": 8} if kind is GlcnetConfig else {}
    plain = method_of(kind(**extra), ("sentinel2",), others=("dem",))
    zero = method_of(kind(elevation="dem", alpha=0, **extra), ("sentinel2",), others=("dem",))
    some = method_of(kind(elevation="dem", alpha=0.5, **extra), ("sentinel2",), others=("dem",))
    start = state(plain)
    assert all(torch.equal(x, start[name]) for name, x in state(some).items())
    first, second = (train(each, batch, 3) for each in (plain, zero))
    assert first == second
    assert all(torch.equal(x, state(zero)[name]) for name, x in state(plain).items())
    with_it = train(some, batch, 1)[0]
    assert set(with_it) == set(first[0]) | {"elevation"}
    assert all(with_it[name] == first[0][name] for name in first[0] if name != "loss")
    assert with_it["loss"] == pytest.approx(0.5 * with_it["elevation"] + 0.5 * first[0]["loss"], rel=1e-6)


def test_glcnet_weighs_global_and_local():
    method = method_of(GlcnetConfig(region_px=8, beta=0.2), ("sentinel2",))
    terms = method(windows("sentinel2"), SEEDS)
    assert float(terms["loss"].detach()) == pytest.approx(
        float((0.2 * terms["global"] + 0.8 * terms["local"]).detach()), rel=1e-6
    )
    with pytest.raises(ConfigError, match="no part of a window of 32 px"):
        method_of(GlcnetConfig(region_px=32), ("sentinel2",))
    far = method_of(GlcnetConfig(region_px=31), ("sentinel2",))  # larger than what two views share
    far(windows("sentinel2"), SEEDS)["loss"].backward()
    assert far(windows("sentinel2"), SEEDS)["local"] == 0


def test_elevation_is_averaged_over_what_is_known():
    batch = windows("sentinel2", "dem", num=2)
    batch.valid[0, 0, :16] = False
    batch.valid[0, 0, 16:20] = False
    batch.image["dem"] = torch.where(batch.valid[:, :, None], batch.image["dem"], 0)
    batch.image["dem"][1] = 0
    target, known = coarse(batch, "dem", 4)
    assert known[0, 0].tolist() == [[False] * 4] * 2 + [[True] * 4] * 2
    assert not known[1].any()
    torch.testing.assert_close(target[0, 0, 2, 1], batch.image["dem"][0, 0, 0, 20:24, 8:16].mean())
    torch.testing.assert_close(target[0, 0, 3, 1], batch.image["dem"][0, 0, 0, 24:, 8:16].mean())


def test_elevation_that_is_missing_everywhere_or_seen_is_refused():
    config = SimclrConfig(elevation="dem")
    with pytest.raises(DataError, match="no dem, which is to be predicted"):
        method_of(config, ("sentinel2",), others=("dem",))(windows("sentinel2"), SEEDS)
    with pytest.raises(ConfigError, match="dem is among inputs"):
        method_of(config, ("sentinel2", "dem"))
    with pytest.raises(ConfigError, match="one is predicted"):
        method_of(SimclrConfig(elevation="sentinel1"), ("sentinel2",), others=("sentinel1",))


METHODS = {
    "simclr": SimclrConfig(), "glcnet": GlcnetConfig(region_px=8), "clip": ClipConfig(),
    "dino": DinoConfig(prototypes=16, local_views=1, centring="mean"), "sinkhorn": DinoConfig(prototypes=16, centring="sinkhorn"),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_constant_and_empty_chips_give_finite_numbers(name):
    batch = windows("sentinel2", "sentinel1")
    batch.image["sentinel2"][0] = 0.5
    batch.image["sentinel2"][1, :, 2] = 0
    batch.image["sentinel1"][2] = 0
    for x in batch.image.values():
        x[3] = 0  # all NaN, as the loader makes it
    batch.valid[3] = False
    method = method_of(METHODS[name], ("sentinel2", "sentinel1"), backbone=TwoEyed).train()
    terms = method(batch, SEEDS)
    terms["loss"].backward()
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


class ViTMini(PlainViT):
    width, depth, heads = 32, 2, 2


@pytest.mark.parametrize("name", ["simclr", "glcnet", "dino"])
def test_several_dates_and_maps_and_sides_that_are_no_whole_patches(name):
    size, sensors = 40, spec("sentinel2", "sentinel1", "dem").sensors
    two = InputSpec((replace(sensors[0], num_dates=2), *sensors[1:]), 10, size)
    config = METHODS[name]
    if name != "dino":
        config = config.model_copy(update={"elevation": "dem", "elevation_px": 5})
    inputs = ("sentinel2", "sentinel1")
    encoder = make_backbone(ViTMini, InputSpec(two.sensors[:2], 10, size), {"layers": [0, 1]})
    method = build_method(config, ViewConfig(), encoder, two, inputs, size).train()
    image = {e.sensor: torch.randn(4, e.num_dates, len(e.bands), size, size) for e in two.sensors}
    batch = Batch(image, torch.ones(4, 2, size, size, dtype=torch.bool), dates=(("2020-01-01", None),) * 4)
    batch.valid[0, 1] = False
    terms = method(batch, SEEDS[:4])
    terms["loss"].backward()
    assert all(value.isfinite() for value in terms.values())
    assert encoder.patch_embed.weight.grad.abs().sum() > 0
    assert method.embed(batch).shape == (4, 32)


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_gives_nearly_the_same(name):
    method = method_of(METHODS[name], ("sentinel2", "sentinel1"), backbone=TwoEyed).train()
    batch = windows("sentinel2", "sentinel1", "dem")
    whole = deepcopy(method)(batch, SEEDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = method(batch, SEEDS)
    half["loss"].backward()
    assert half["loss"].dtype == torch.float32
    assert float(half["loss"].detach()) == pytest.approx(float(whole["loss"].detach()), rel=0.02)
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("name", ["simclr", "glcnet", "clip"])
def test_contrast_needs_two_windows(name):
    method = method_of(METHODS[name], ("sentinel2", "sentinel1"), backbone=TwoEyed)
    with pytest.raises(ConfigError, match="a batch of one window") as caught:
        method(windows("sentinel2", "sentinel1", num=1), [0])
    assert "batch_size" in caught.value.fix


@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_a_sensor_that_no_window_has_is_refused_where_it_is_needed(name):
    method = method_of(METHODS[name], ("sentinel2", "sentinel1"))
    for batch in (windows("sentinel2"), windows("sentinel2", "sentinel1")):
        if "sentinel1" in batch.image:
            batch.image["sentinel1"].zero_()
        with pytest.raises(DataError, match="no window of the batch holds sentinel1"):
            method(batch, SEEDS)


@pytest.mark.parametrize("name", METHODS)
def test_dates_and_places_are_kept_from_the_encoder(name, monkeypatch):
    method = method_of(METHODS[name], ("sentinel2", "sentinel1"), backbone=TwoEyed)
    batches, forward = [], TwoEyed.forward
    monkeypatch.setattr(TwoEyed, "forward", lambda self, batch: batches.append(batch) or forward(self, batch))
    batch = windows("sentinel2", "sentinel1")
    batch.dates, batch.location = (("2020-01-01",),) * NUM, torch.rand(NUM, 2)
    method(batch, SEEDS)
    assert batches
    assert all(each.location is None and not each.dates for each in batches)


def part(batch, rows):
    return Batch({name: x[rows] for name, x in batch.image.items()}, batch.valid[rows])


def test_vectors_of_a_sensor_hang_on_that_sensor_alone():
    method = method_of(ClipConfig(), ("sentinel2", "sentinel1"), backbone=TwoEyed)
    batch = windows("sentinel2", "sentinel1")
    both = method.project(batch)
    alone = method.project(Batch({"sentinel1": batch.image["sentinel1"]}, batch.valid))
    torch.testing.assert_close(alone["sentinel1"], both["sentinel1"])
    assert (alone["sentinel2"] == 0).all()

    def loss(batch, seeds):
        return float(method(batch, seeds)["loss"].detach())

    # A window without a sensor adds nothing by it: marked missing equals left out.
    batch.image["sentinel1"][5] = 0
    with_gap = loss(batch, SEEDS)
    rows = [0, 1, 2, 3, 4, 6, 7]
    small = loss(part(batch, rows), rows)
    batch.image["sentinel2"][5] = 0
    assert loss(batch, SEEDS) == pytest.approx(small, rel=1e-5)
    assert with_gap != pytest.approx(small, rel=1e-3)  # its other sensor is one more to be told from


def test_clip_refuses_what_cannot_work():
    with pytest.raises(ConfigError, match="cannot do without sentinel2, sentinel1"):
        method_of(ClipConfig(), ("sentinel2", "sentinel1"))
    with pytest.raises(ConfigError, match="two or more"):
        method_of(ClipConfig(), ("sentinel2",), backbone=TwoEyed)
    with pytest.raises(ConfigError, match="no effect on two sensors"):
        method_of(ClipConfig(drop_sensors=0.5), ("sentinel2", "sentinel1"), backbone=TwoEyed)
    method = method_of(ClipConfig(), ("sentinel2", "sentinel1"), backbone=TwoEyed)
    with pytest.raises(DataError, match="no window of the batch has two"):
        method(windows("sentinel2"), SEEDS)


def test_clip_leaves_two_sensors_of_a_window():
    sensors = ("sentinel2", "sentinel1", "dem", "other")
    method = method_of(ClipConfig(drop_sensors=0.8), sensors, backbone=TwoEyed)
    have = {name: torch.ones(200, dtype=torch.bool) for name in sensors}
    have["dem"][:100] = False
    have["other"][:50] = False
    have["sentinel1"][:10] = False
    stays = method._drop(have, range(200))
    count = sum(x.int() for x in stays.values())
    assert all((~have[name][i] <= ~x[i]) for name, x in stays.items() for i in range(200))
    assert (count[10:] >= 2).all()
    assert (count[:10] == 1).all()
    assert 2 < float(count[100:].float().mean()) < 2.5
    halves = [
        method._drop({n: x[rows] for n, x in have.items()}, range(200)[rows])
        for rows in (slice(0, 100), slice(100, 200))
    ]
    assert all(torch.equal(torch.cat([h[n] for h in halves]), stays[n]) for n in sensors)


def test_the_temperature_of_clip_stays_within_bounds():
    method = method_of(ClipConfig(temperature=0.07), ("sentinel2", "sentinel1"), backbone=TwoEyed)
    with torch.no_grad():
        method.log_temperature.fill_(-50)
    method.after_step(0)
    assert float(method.log_temperature.exp().detach()) == pytest.approx(0.01)


@pytest.mark.slow
def test_galileo_learns_by_contrast_between_radar_and_optics():
    spec_, torch_seed = spec("sentinel2", "sentinel1"), 0
    torch.manual_seed(torch_seed)
    encoder = make_backbone("galileo_nano", spec_, {"patch_px": 8})
    method = build_method(ClipConfig(), ViewConfig(), encoder, spec_, ("sentinel2", "sentinel1"), SIZE)
    batch = windows("sentinel2", "sentinel1")
    history = train(method, batch, 60, lr=3e-4)
    print(history[0], history[-1])
    assert history[-1]["loss"] <= 0.5 * history[0]["loss"]
    found = method.eval().project(batch)
    print(retrieval(found["sentinel2"], found["sentinel1"]))


@pytest.mark.parametrize("name", ["dino", "sinkhorn", "clip"])
def test_a_training_goes_on_from_its_state_bit_for_bit(name):
    sensors, batch = ("sentinel2", "sentinel1"), windows("sentinel2", "sentinel1")

    def step(method, optimiser, number):
        method.before_step(number / 6)
        loss = method(batch, [10 * number + seed for seed in SEEDS])["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        method.after_step(number / 6)

    def fresh():
        method = method_of(METHODS[name], sensors, backbone=TwoEyed).train()
        return method, torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 1e-2)

    whole, optimiser = fresh()
    for number in range(6):
        step(whole, optimiser, number)
        if number == 2:
            saved = deepcopy(whole.state_dict()), deepcopy(optimiser.state_dict())
    resumed, second = fresh()
    resumed.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    for number in range(3, 6):
        step(resumed, second, number)
    assert all(torch.equal(x, whole.state_dict()[n]) for n, x in resumed.state_dict().items())


def test_student_and_teacher_share_nothing():
    method = method_of(METHODS["dino"], ("sentinel2",))
    own = {id(p) for p in (*method.encoder.parameters(), *method.head.parameters(), *method.encoder.buffers())}
    assert not own & {id(p) for p in (*method.teacher.parameters(), *method.teacher.buffers())}
    before = {n: x.clone() for n, x in method.teacher.state_dict().items()}
    method.train()(windows("sentinel2"), SEEDS)["loss"].backward()
    after = method.teacher.state_dict()
    assert all(torch.equal(x, after[n]) for n, x in before.items() if "num_batches" not in n)
    assert all(p.grad is None for p in method.teacher.parameters())
    assert method.centre.abs().sum() > 0
    centre = method.centre.clone()
    method.eval()(windows("sentinel2"), SEEDS)
    assert torch.equal(centre, method.centre)


def test_methods_come_by_their_configs(monkeypatch):
    for name, expected in {"simclr": "SimCLR", "glcnet": "GLCNet", "clip": "CLIP", "dino": "DINO"}.items():
        assert type(method_of(METHODS[name], ("sentinel2", "sentinel1"), backbone=TwoEyed)).__name__ == expected
    given = []
    fake = types.SimpleNamespace(MaskedAutoencoder=lambda *arguments: given.append(arguments))
    monkeypatch.setitem(sys.modules, "covermap.nn.ssl.mae", fake)
    method_of(MaeConfig(), ("sentinel2",))
    assert [type(each).__name__ for each in given[0]] == ["UNetEncoder", "InputSpec", "MaeConfig"]


TWO = """
import sys, torch
from torch import distributed
from test_ssl_methods import METHODS, SEEDS, TwoEyed, method_of, part, windows
torch.set_num_threads(1)

def run(name, rank, size):
    batch = windows("sentinel2", "sentinel1", "dem")
    batch.image["sentinel1"][3] = 0
    batch.valid[1, :, :20] = False
    rows = slice(rank * 8 // size, (rank + 1) * 8 // size)
    config = METHODS[name]
    if name in ("simclr", "glcnet"):
        config = config.model_copy(update={"elevation": "dem", "drop_positive": name == "simclr"})
    method = method_of(config, ("sentinel2", "sentinel1"), others=("dem",), backbone=TwoEyed).double()
    batch.image = {k: v.double() for k, v in batch.image.items()}
    learnt = [p for p in method.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learnt, 0.05)
    losses = []
    for step in range(4):
        method.before_step(step / 4)
        loss = method(part(batch, rows), [s + 100 * step for s in SEEDS[rows]])["loss"]
        optimiser.zero_grad()
        loss.backward()
        shared = [loss.detach(), *(p.grad for p in learnt if p.grad is not None)]
        for x in shared if size > 1 else []:
            distributed.all_reduce(x)
            x /= size
        optimiser.step()
        method.after_step(step / 4)
        losses.append(loss.detach())
    return torch.stack(losses), method.state_dict()

rank, file = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
found = {name: run(name, rank, 2) for name in METHODS}
distributed.destroy_process_group()
if rank == 0:
    for name, (losses, state) in found.items():
        expected, whole = run(name, 0, 1)
        torch.testing.assert_close(losses, expected, rtol=1e-8, atol=1e-8, msg=lambda text: f"{name}: {text}")
        for key, x in whole.items():
            torch.testing.assert_close(state[key], x, rtol=1e-7, atol=1e-8, msg=lambda text: f"{name} {key}: {text}")
    print("equal")
"""


@pytest.mark.slow
def test_two_processes_with_half_the_windows_each_train_as_one_with_all(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), str(tmp_path / "meet")], cwd=Path(__file__).parent,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [each.communicate(timeout=240) for each in started]
    assert outputs[0][0].strip() == "equal", outputs
