from controller.api import SearchResult
from controller.core.architecture import Architecture
from controller.core.objective import Objective
from controller.core.trial import Trial, TrialState


def trial(index: int, accuracy: float, macs_m: float) -> Trial:
    return Trial(
        index=index,
        architecture=Architecture.of({"index": index}),
        state=TrialState.COMPLETE,
        values={"accuracy": accuracy, "macs_m": macs_m},
    )


def test_result_selects_from_its_front():
    front = (trial(0, 0.95, 20.0), trial(1, 0.94, 8.0), trial(2, 0.70, 4.0))
    result = SearchResult(
        run_id="run",
        store="unused",
        front=front,
        objectives=(Objective.parse("accuracy"), Objective.parse("macs_m")),
        trials=front,
    )
    assert result.select("accuracy:0.01,macs_m") is front[1]
    assert result.select("accuracy,macs_m<=5") is front[2]
