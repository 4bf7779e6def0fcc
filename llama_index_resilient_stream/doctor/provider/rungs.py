"""Which ways to continue ResilientLLM takes on a provider, best first, by the rules of `recovery.decision`."""

from __future__ import annotations

from ...providers import KEEPING_SERVERS, SERVERS
from ...recovery.continuation import Continuation
from ...recovery.decision import Ladder
from ...recovery.events import Learned, Model
from ...report import Strategy
from .profile import PrefillSupport, Profile
from .settings import SettingPlace, advise


def rungs_of(profile: Profile) -> list[Strategy]:
    """Return the ways to continue with the settings that are advised, without those that the provider refused."""
    chosen = any(each.place is SettingPlace.WRAPPER and each.name == "continuation" for each in advise(profile))
    learned = Learned(server=profile.server or None)
    if profile.prefill in (PrefillSupport.REFUSED, PrefillSupport.NEW_TURN):
        learned.refused_strategies.add(Strategy.PREFILL)
    model = Model(
        "",
        Continuation(Strategy.PREFILL if chosen else Strategy.ASK),
        prefills_on={} if profile.thinks else SERVERS,
        keeps_on=frozenset() if chosen else KEEPING_SERVERS,
        learned=learned,
    )
    replay = [Strategy.REPLAY] if model.learned.server in model.keeps_on else []
    return [*replay, *_climbed_down(Ladder(model))]


def _climbed_down(ladder: Ladder) -> list[Strategy]:
    rungs = [ladder.strategy]
    while not ladder.is_last and ladder.descend(rungs[-1]):
        rungs.append(ladder.strategy)
    return list(dict.fromkeys(rungs))
