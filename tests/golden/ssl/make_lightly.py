"""Stored inputs and outputs of lightly 1.5.22, the oracle of tests/nn/ssl/test_ssl_losses.py. See README.md beside."""

import importlib
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

root = Path(sys.argv[1]) / "lightly"
# The packages' own __init__ files ask for torchvision and the network; single modules need neither.
for name in ("lightly", "lightly.loss", "lightly.models", "lightly.models.modules", "lightly.utils"):
    package = types.ModuleType(name)
    package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    sys.modules[name] = package
for name in ("torchvision", "torchvision.ops", "torchvision.models", "torchvision.transforms"):
    sys.modules[name] = MagicMock()
for parent, names in (
    ("lightly.utils", ["dist"]),
    ("lightly.models", ["utils"]),
    ("lightly.models.modules", ["memory_bank", "center"]),
):
    for name in names:
        setattr(sys.modules[parent], name, importlib.import_module(f"{parent}.{name}"))

NTXentLoss = importlib.import_module("lightly.loss.ntx_ent_loss").NTXentLoss
DCLLoss = importlib.import_module("lightly.loss.dcl_loss").DCLLoss
DINOLoss = importlib.import_module("lightly.loss.dino_loss").DINOLoss
cosine_schedule = importlib.import_module("lightly.utils.scheduler").cosine_schedule

random = np.random.default_rng(0)
stored = {"a": random.standard_normal((6, 8)), "b": random.standard_normal((6, 8))}
a, b = torch.tensor(stored["a"]), torch.tensor(stored["b"])
stored["ntxent"] = [float(NTXentLoss(t)(a, b)) for t in (0.1, 0.5)]
stored["dcl"] = [float(DCLLoss(t)(a, b)) for t in (0.1, 0.5)]

stored["teacher"], stored["student"] = random.standard_normal((3, 2, 4, 7)), random.standard_normal((3, 5, 4, 7))
loss = DINOLoss(output_dim=7, student_temp=0.1, center_momentum=0.9).double()
losses, centres = [], []
for step, temperature in enumerate((0.04, 0.05, 0.07)):
    teacher, student = (list(torch.tensor(stored[name][step])) for name in ("teacher", "student"))
    losses.append(float(loss(teacher, student, teacher_temp=temperature)))
    centres.append(loss.center.flatten().numpy().copy())
stored["dino"], stored["centre"] = losses, centres

stored["cosine"] = [cosine_schedule(step, 11, 0.996, 1.0) for step in range(11)]

update_momentum = importlib.import_module("lightly.models.utils").update_momentum
torch.manual_seed(0)
student, teacher = torch.nn.Linear(3, 2).double(), torch.nn.Linear(3, 2).double()
stored["weights"] = [each.weight.detach().numpy().copy() for each in (student, teacher)]
for _ in range(3):
    update_momentum(student, teacher, m=0.9)
stored["averaged"] = teacher.weight.detach().numpy()

np.savez_compressed(sys.argv[2], **{key: np.asarray(value) for key, value in stored.items()})
