"""`run`: a config from data to report."""

from __future__ import annotations

from covermap.core.config import RunConfig
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import Run
from covermap.data.scene import open_scenes
from covermap.data.split import Split
from covermap.data.stats import with_own_statistics
from covermap.models import read_card
from covermap.report import write_report
from covermap.verbs.evaluate import evaluate
from covermap.verbs.map_job import work_beside
from covermap.verbs.predict import predict, ready_settings
from covermap.verbs.predict_chips import predict_chips
from covermap.verbs.train import train


def run(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> Run:
    """Train, score the test part, map every scene and write report.html; raises what these raise."""
    done = train_and_map(config, resume=resume, overwrite=overwrite, say=say, on_progress=on_progress)
    write_report(done)
    return done


def train_and_map(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> Run:
    """The same without the report."""
    done = train(config, resume=resume, overwrite=overwrite, say=say, on_progress=on_progress)
    if any(tile.part == "test" for tile in Split.load(done.path("split.csv")).tiles):
        evaluate(done, say=say, on_progress=on_progress)
    card = read_card(done.path("model"))
    scenes = with_own_statistics(open_scenes(done.config.data), card.spec)
    if card.task.kind.chips:
        table = done.path("chips.csv")
        if not (resume and table.exists()):
            say(f"answering for {len(scenes):,} scenes")
            settings = ready_settings(config.predict)
            predict_chips(
                done.path("model"), [scene.images for scene in scenes], table,
                settings=settings, overwrite=overwrite, statistics=[scene.statistics for scene in scenes],
            )  # fmt: skip
        scenes = []
    for scene in scenes:
        target = done.map_path(scene.name, len(scenes))
        if not (resume and target.exists() and not work_beside(target).exists()):
            say(f"mapping {scene.name}")
            predict(
                done.path("model"), scene.images, target,
                settings=config.predict, overwrite=overwrite, statistics=scene.statistics,
                on_progress=on_progress,
            )  # fmt: skip
    return done
