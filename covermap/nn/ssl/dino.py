"""DINO (Caron et al. 2021): a student sees whole windows and parts, and answers as its own average does for wholes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from covermap.core.pretrain_config import DinoConfig, ViewConfig
from covermap.core.types import Batch, InputSpec
from covermap.nn.embedding import vectors
from covermap.nn.model import Backbone
from covermap.nn.ssl.heads import MlpHead, Prototypes
from covermap.nn.ssl.inputs import seen_by
from covermap.nn.ssl.losses import centred, dino_cross_entropy, entropy, moved_centre, sinkhorn
from covermap.nn.ssl.method import Method
from covermap.nn.ssl.teacher import Teacher, cosine, warmed
from covermap.nn.ssl.views import View, Views

_GLOBAL = 2
_WIDTH, _BOTTLENECK = 512, 128
_FLOOR = 0.1
_LEAST = 0.02
"""Nats that an answer tells about its view, at least: below, all views get the same even answer."""


class DINO(Method):
    """Terms: kl, of the student to the teacher, and teacher_entropy, of the teacher's answers; their sum is the loss.

    prototype_entropy: of the mean of the teacher's answers to one process's windows, how evenly prototypes are used.
    information: what it is above teacher_entropy, how much an answer tells about its view, nats, at most log(2 B): a
    teacher that tells nothing is followed at a small kl, and nothing is learnt.
    The encoder that is kept is the student's. Momentum and temperatures follow from the progress alone, and the centre
    is in the state, so that an interrupted training goes on as it was.
    """

    centre: Tensor

    def __init__(
        self, config: DinoConfig, views: ViewConfig, encoder: Backbone, spec: InputSpec, inputs: Sequence[str],
        size_px: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config, self.encoder, self.inputs = config, encoder, tuple(inputs)
        self.views = Views(views, spec, inputs, size_px)
        self.local_px = config.local_px or max(size_px // 2, 8)
        self.head = nn.Sequential(
            MlpHead(encoder.channels[-1], _WIDTH, _BOTTLENECK, depth=3, norm="none"),
            Prototypes(_BOTTLENECK, config.prototypes),
        )
        self.teacher = Teacher(self._student(), buffers=config.buffers)
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.temperature, self.progress = config.teacher_temperature[0], 0.0

    def _student(self) -> Mapping[str, nn.Module]:
        return {"encoder": self.encoder, "head": self.head}

    @property
    def floors(self) -> Mapping[str, float]:
        """Of prototype_entropy a tenth of log(prototypes): a teacher that answers all with one prototype has 0.

        Not of teacher_entropy: a teacher that is sure of each answer, and gives different ones, is what is wished for.
        The other collapse, to one even answer, has the highest entropies, and no information; so has a teacher at its
        start, so that this floor counts in the second half.
        """
        late = {"information": _LEAST} if self.progress > 0.5 else {}
        return {"prototype_entropy": _FLOOR * math.log(self.config.prototypes), **late}

    def before_step(self, progress: float) -> None:
        """The teacher's temperature, which rises for a third of the training."""
        self.progress = progress
        self.temperature = warmed(progress, *self.config.teacher_temperature, share=1 / 3)

    def after_step(self, progress: float) -> None:
        """The teacher follows, ever more slowly."""
        self.teacher.update(self._student(), cosine(progress, self.config.momentum, 1.0))

    def forward(self, batch: Batch, seeds: Sequence[int]) -> dict[str, Tensor]:
        """See Method; raises DataError for a sensor that no window has. In training the centre moves."""
        seen = seen_by(self.encoder, batch, self.inputs)
        wholes = [self.views(seen, seeds, k) for k in range(_GLOBAL)]
        parts = [
            self.views(seen, seeds, _GLOBAL + k, scale=self.config.local_scale, size_px=self.local_px)
            for k in range(self.config.local_views)
        ]
        student = torch.cat([_answers(self.encoder, self.head, views) for views in (wholes, parts) if views])
        teacher = self._targets(_answers(self.teacher.parts["encoder"], self.teacher.parts["head"], wholes))
        loss = dino_cross_entropy(student, teacher, self.config.student_temperature)
        each, together = entropy(teacher), entropy(teacher.mean((0, 1)))
        return {
            "loss": loss, "kl": loss.detach() - each, "teacher_entropy": each, "prototype_entropy": together,
            "information": together - each,
        }  # fmt: skip

    @torch.no_grad()
    def _targets(self, logits: Tensor) -> Tensor:
        """Teacher logits (2, B, K) -> probabilities.

        The centre begins at the first batch's mean. From 0, as published, the part that all answers have in common
        took some ten steps to go, in which short trainings collapsed to one prototype.
        """
        if self.config.centring == "sinkhorn":
            return sinkhorn(logits, self.temperature)
        if self.training and not bool(self.centre.any()):
            self.centre.copy_(moved_centre(self.centre, logits, 0.0))
        answers = centred(logits, self.centre, self.temperature)
        if self.training:
            self.centre.copy_(moved_centre(self.centre, logits))
        return answers


def _answers(encoder: nn.Module, head: nn.Module, views: Sequence[View]) -> Tensor:
    """Views of one size, in one pass as in the paper -> logits (V, B, K)."""
    first = views[0].batch
    image = {name: torch.cat([view.batch.image[name] for view in views]) for name in first.image}
    stacked = replace(first, image=image, valid=torch.cat([view.batch.valid for view in views]))
    assert isinstance(encoder, Backbone)
    with torch.set_grad_enabled(torch.is_grad_enabled() and next(head.parameters()).requires_grad):
        logits: Tensor = head(vectors(encoder, stacked))
    return logits.view(len(views), len(first), -1)
