from statistics import NormalDist

import numpy as np

from isoflop import meter
from isoflop.meters._checks import numbers, setting


@meter("capacity", per="run")
def capacity_choice(demand, *, price=1.0, penalty=10.0, service=0.0):
    """capacity = quantile of demand at max(1 - price / penalty, service)

    How much to reserve when demand is uncertain: `demand` holds draws of a forecast (0 or more), a unit reserved costs
    `price` and a unit of demand that is not met costs `penalty`. This choice has the least expected cost over the
    draws, whatever their shape, heavy tails included; service, where it is higher, is the least chance that all demand
    is met. Returns capacity, cost, met (the share of draws served whole) and normal_cost: what the same rule costs when
    demand is taken as normal.

    Source: the newsvendor's rule on posterior draws, in place of the two-stage forecast of the catalogue's entry
    `harmony_cloud_scaling` (form from its abstract). Raises ValueError for a price not below the penalty.
    """
    (draws,) = numbers("capacity_choice", least=2, demand=demand)
    setting("capacity_choice", bool((draws >= 0).all()), "demand", "0 or more", draws.min())
    setting("capacity_choice", 0 < price < penalty, "price", "above 0 and below penalty", price)
    setting("capacity_choice", 0 <= service < 1, "service", "a chance from 0 to below 1", service)
    share = max(1.0 - price / penalty, service)
    chosen = float(np.quantile(draws, share, method="inverted_cdf"))
    spread = float(draws.std(ddof=1))
    plain = max(NormalDist(float(draws.mean()), spread).inv_cdf(share), 0.0) if spread > 0 else chosen

    def cost(capacity):
        return price * capacity + penalty * float(np.maximum(draws - capacity, 0.0).mean())

    met = float((draws <= chosen).mean())
    return {"capacity": chosen, "cost": cost(chosen), "met": met, "normal_cost": cost(plain), "draws": len(draws)}
