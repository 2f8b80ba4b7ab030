"""Part 4: the judge test of the model as it is."""

import json

from cai.judge_test import JudgeTestOptions, judge_test
from cai.reproduce.options import ReproduceOptions, Result
from cai.resolve import Options
from cai.view.progress import RunProgress

FOLDER = "4-judge"
CONSTITUTION = "harmless"


def run(options: ReproduceOptions, progress: RunProgress) -> Result:
    """Judge human pairs under the shipped principles."""
    engine = options.engine.model_dump(mode="json", exclude_defaults=True)
    return judge_test(
        JudgeTestOptions(
            judge=options.model,
            data=options.data,
            options=Options(
                constitution=CONSTITUTION,
                settings=[f"engine.{key}={json.dumps(value)}" for key, value in engine.items()],
                seed=options.seed,
                skip_bad=options.skip_bad,
            ),
            n=options.sizes.judge.n_pairs,
            folder=options.out / FOLDER,
        ),
        progress,
    )
