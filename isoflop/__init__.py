"""isoflop: at equal compute, which choice is best, and how sure are we?"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "law": "_law", "Law": "_law", "positive": "_law", "unit": "_law", "real": "_law", "check_law": "_check",
    "meter": "_meter", "Meter": "_meter", "fill": "_meter",
    "measure": "_meter", "Measured": "_meter",
    "read": "_runs", "RunsError": "_columns",
    "fit": "_fit", "Fit": "_fit", "audit": "_audit", "Objective": "_objective",
    "forecast": "_plan", "allocate": "_plan", "frontier": "_plan",
    "plan": "_planned", "pareto": "_planned", "Plan": "_planned", "plan_at": "_constraints",
    "next_runs": "_design", "NextRuns": "_design", "deciding_runs": "_deciding",
    "isoflops": "_isoflops", "second_opinion": "_isoflops",
    "compare": "_select", "Stack": "_auto", "auto": "_auto",
    "checkpoints": "_checkpoints", "crossover": "_crossover", "checklist": "_checklist",
    "chain": "_chain", "Chain": "_chain", "two_step": "_chain", "observe": "_observational", "trend": "_trend",
    "intervals": "_intervals", "Intervals": "_intervals",
    "families": "_families", "Families": "_families", "many": "_executor", "nuts": "_fit",
    "replay": "levers.think._replay", "forecast_coverage": "levers.think._forecast_coverage",
    "allocate_samples": "levers.think._allocate",
    "pass_until": "_emergence", "pass_rates": "_emergence", "choice_chain": "_emergence",
    "sweep": "_lever", "check_lever": "_lever", "report": "_report", "Report": "_report", "recorded": "_recorded",
    "LawRegressor": "_sklearn", "import_runs": "importers._import", "Imported": "importers._import",
    "count_params": "importers._architecture", "count_flops": "importers._architecture",
}  # fmt: skip
_MODULES = {"xp": "_xp"}

__version__ = "0.1.0"
__all__ = [*_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"isoflop.{_MODULES[name]}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'isoflop' has no attribute {name!r}")
    return getattr(importlib.import_module(f"isoflop.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
