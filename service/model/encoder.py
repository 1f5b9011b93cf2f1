"""Whisper's encoder over explicit weights, dense or winnowed: early, late or both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model import padding, sparsify
from service.model.gates import Deciding
from service.model.layers import merge_heads, mlp, norm, project
from service.model.operators.attention import attend_and_score, attend_near
from service.model.padding import Layout
from service.model.plan import Plan, Thinning, Way, plan_of
from service.model.weights import EncoderLayer, EncoderWeights
from service.profiles import Profile
from service.transfer import picked, sent

Asked = TypeVar("Asked", bound=Hashable)

EVERY = (True, True)  # attention and MLP of a layer


class Winnowed(NamedTuple):
    """A window's states (k, D), their original frame positions (k,), int64, ascending, and the
    logarithms of how many frames each counts as (k,); None: of one. Where neighbours are averaged,
    the position is that of the first of them."""

    states_TD: Tensor
    positions_T: Tensor
    log_weights_T: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Windows that go through the next layer together.

    `layouts`: what each one's states stand for; where scores chose them, `chosen_BT` are their
    positions. `log_weights_BT`: of these states in attention; None: all count alike. Of the layer
    that has just run, `received_BT` is what frames received, and `keys_BTD` are theirs, where
    somebody looks.
    """

    windows: tuple[int, ...]
    states_BTD: Tensor
    layouts: tuple[Layout, ...]
    chosen_BT: Tensor | None = None
    log_weights_BT: Tensor | None = None
    received_BT: Tensor | None = None
    keys_BTD: Tensor | None = None

    @property
    def shape(self) -> Hashable:
        """The same for those that can become one."""
        weighed, chosen = self.log_weights_BT is not None, self.chosen_BT is not None
        return self.states_BTD.shape[1], self.layouts[0].num_near, weighed, chosen

    def positions(self) -> Tensor:
        """(B, T)."""
        if self.chosen_BT is not None:
            return self.chosen_BT
        return self.all_of(lambda layout: sent(layout.positions_T, self.states_BTD.device))

    def all_of(self, of: Callable[[Layout], Tensor]) -> Tensor:
        """(B, ...): what each window's layout says, asked once where they have the same."""
        asked = self.layouts[:1] if self.is_laid_out_alike else self.layouts
        each = torch.stack([of(layout) for layout in asked])
        return each.expand(len(self.windows), *each.shape[1:])

    @property
    def is_laid_out_alike(self) -> bool:
        return all(layout is self.layouts[0] for layout in self.layouts)

    def each(self) -> Iterator[tuple[int, Winnowed]]:
        """Its windows, by number; a view would keep the states of all while one is decoded."""
        positions_BT, weights_BT = self.positions(), self.log_weights_BT
        for place, window in enumerate(self.windows):
            states_TD = self.states_BTD[place]
            yield (
                window,
                Winnowed(
                    states_TD.clone() if len(self.windows) > 1 else states_TD,
                    positions_BT[place],
                    None if weights_BT is None else weights_BT[place],
                ),
            )


def encode(weights: EncoderWeights, mel_BFT: Tensor, profile: Profile) -> tuple[Tensor, Tensor]:
    """Encodes windows by one profile, all of each one a recording.

    `mel_BFT`: (B, mels, 2T), T at most the checkpoint's 1500. Returns the states (B, k, D) and
    their original frame positions (B, k), int64; a dense profile keeps k = T.
    """
    plan = plan_of(profile, mel_BFT.shape[-1] // 2)
    found = encode_windows(weights, mel_BFT, [plan] * len(mel_BFT))
    return torch.stack([w.states_TD for w in found]), torch.stack([w.positions_T for w in found])


def encode_windows(
    weights: EncoderWeights,
    mel_BFT: Tensor,
    plans: Sequence[Plan],
    deciding: Deciding | None = None,
) -> list[Winnowed]:
    """Encodes windows, each by its plan: together where, and for as long as, that is the same work.

    `mel_BFT`: (B, mels, 2T), T at most the checkpoint's 1500. `deciding`: gates say which modules
    run, of one window alone; attention that frames are chosen by always does.
    """
    groups = _embedded(weights, mel_BFT, [plan.layout for plan in plans])
    groups = _thinned(groups, mel_BFT, [plan.thinning(0) for plan in plans])
    for number, layer in enumerate(weights.layers, start=1):
        ways, thinnings = zip(*((p.way(number), p.thinning(number)) for p in plans), strict=True)
        looked_at = any(thinning and thinning.looks for thinning in thinnings)
        groups = [
            _through(group, layer, weights, way, looked_at, deciding)
            for group, way in _parted(groups, ways)
        ]
        groups = _thinned(groups, mel_BFT, thinnings, merges=number == 1)
    groups = [replace(group, states_BTD=norm(group.states_BTD, weights.norm)) for group in groups]
    groups = _thinned(groups, mel_BFT, [plan.late for plan in plans])
    found = dict(one for group in groups for one in group.each())
    return [found[window] for window in range(len(plans))]


def _embedded(weights: EncoderWeights, mel_BFT: Tensor, layouts: Sequence[Layout]) -> list[_Group]:
    """What the layers are given, by windows that are laid out alike."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for window, layout in enumerate(layouts):
        alike[layout.num_near, len(layout.positions_T)].append(window)
    groups = []
    for windows in alike.values():
        layout = layouts[windows[0]]
        near_BFT = picked(mel_BFT, windows)[..., : layout.mel_frames]
        states = padding.place(_stem(weights, near_BFT), weights.positions_TD, layout)
        group = _Group(tuple(windows), states, ())
        groups.append(_laid_out(group, states, [layouts[window] for window in windows]))
    return groups


def _parted(groups: Sequence[_Group], asked: Sequence[Asked]) -> Iterator[tuple[_Group, Asked]]:
    """The windows anew, by what is asked of each: together those that are asked the same and have
    as many states."""
    members: dict[tuple[Hashable, Asked], list[tuple[_Group, int]]] = defaultdict(list)
    for group in groups:
        for place, window in enumerate(group.windows):
            members[group.shape, asked[window]].append((group, place))
    for (_, what), some in members.items():
        yield _united(some), what


def _united(members: Sequence[tuple[_Group, int]]) -> _Group:
    """Windows by their places in groups that they are in."""
    first = members[0][0]
    if len(members) == len(first.windows) and all(group is first for group, _ in members):
        return first

    def all_of(of: Callable[[_Group], Tensor | None]) -> Tensor | None:
        each = [tensor[place] for group, place in members if (tensor := of(group)) is not None]
        return torch.stack(each) if each else None

    return _Group(
        tuple(group.windows[place] for group, place in members),
        torch.stack([group.states_BTD[place] for group, place in members]),
        tuple(group.layouts[place] for group, place in members),
        all_of(lambda group: group.chosen_BT),
        all_of(lambda group: group.log_weights_BT),
        all_of(lambda group: group.received_BT),
        all_of(lambda group: group.keys_BTD),
    )


def _through(
    group: _Group,
    layer: EncoderLayer,
    weights: EncoderWeights,
    way: Way,
    looked_at: bool,
    deciding: Deciding | None,
) -> _Group:
    """A layer; what is `looked_at` after it, somebody chooses or joins frames by."""
    states_BTD, received_BT, keys_BTD = group.states_BTD, None, None
    attends, feeds = EVERY
    if deciding is not None:
        at_T = group.positions()[0]
        attends, feeds = deciding.layer(states_BTD, at_T, needs_attention=looked_at)
    if way.aggregation:
        states_BTD, received_BT = attend_scored(states_BTD, layer, weights, way.aggregation)
    elif attends:
        log_weights_BT = group.log_weights_BT
        states_BTD, keys_BTD = attend_keyed(states_BTD, layer, weights, log_weights_BT, way.reach)
    if feeds:
        states_BTD = mlp(states_BTD, layer.mlp)
    keys_BTD = keys_BTD if looked_at else None
    return replace(group, states_BTD=states_BTD, received_BT=received_BT, keys_BTD=keys_BTD)


def _thinned(
    groups: Sequence[_Group],
    mel_BFT: Tensor,
    thinnings: Sequence[Thinning | None],
    *,
    merges: bool = False,
) -> list[_Group]:
    """What each window's thinning leaves of it; and, if it `merges`, of its padding."""
    fewer = []
    for group, thinning in _parted(groups, thinnings):
        if thinning is not None and thinning.pool == "alike":
            group = _joined_alike(group, thinning.share)
        if merges:
            group = _by_layout(group, padding.merge)
        if thinning is not None and thinning.pool != "alike":
            group = _fewer(group, thinning, mel_BFT)
        fewer.append(replace(group, received_BT=None, keys_BTD=None))
    return fewer


def _fewer(group: _Group, thinning: Thinning, mel_BFT: Tensor) -> _Group:
    """Frames that are chosen, or means of as many."""
    share = thinning.share
    if thinning.pool == "mean":
        return _by_layout(group, lambda states, layout: padding.thin(states, layout, share))
    if not thinning.selection:
        return _every_nth(group, share)
    states_BTD, scores_BT = group.states_BTD, group.received_BT
    if scores_BT is None:
        some_BFT, num_frames = picked(mel_BFT, group.windows), states_BTD.shape[1]
        scores_BT = sparsify.baseline_scores(thinning.selection, some_BFT, num_frames, share)
    chosen_BT = sparsify.keep_positions(scores_BT, share, thinning.within)
    index_BTD = chosen_BT[..., None].expand(-1, -1, states_BTD.shape[-1])
    return replace(group, states_BTD=states_BTD.gather(1, index_BTD), chosen_BT=chosen_BT)


def _every_nth(group: _Group, share: float) -> _Group:
    num_states = group.states_BTD.shape[1]
    first = sparsify.even_positions(num_states, sparsify.num_kept(num_states, share))
    on_device = sent(first, group.states_BTD.device)
    chosen_BT = group.positions()[:, on_device]
    return replace(group, states_BTD=group.states_BTD[:, on_device], chosen_BT=chosen_BT)


def _joined_alike(group: _Group, share: float) -> _Group:
    """Each window has neighbours of its own that are alike."""
    assert group.keys_BTD is not None  # somebody looks
    each = [
        padding.thin_alike(group.states_BTD[place : place + 1], layout, share, keys_TD)
        for place, (layout, keys_TD) in enumerate(zip(group.layouts, group.keys_BTD, strict=True))
    ]
    return _laid_out(group, torch.cat([states for states, _ in each]), [at for _, at in each])


def _by_layout(group: _Group, change: Callable[[Tensor, Layout], tuple[Tensor, Layout]]) -> _Group:
    """Changes states and what they stand for: of all windows at once where that is the same."""
    if group.is_laid_out_alike:
        states_BTD, layout = change(group.states_BTD, group.layouts[0])
        if layout is group.layouts[0]:
            return group
        return _laid_out(group, states_BTD, [layout] * len(group.windows))
    each = [
        change(group.states_BTD[place : place + 1], layout)
        for place, layout in enumerate(group.layouts)
    ]
    return _laid_out(group, torch.cat([states for states, _ in each]), [at for _, at in each])


def _laid_out(group: _Group, states_BTD: Tensor, layouts: Sequence[Layout]) -> _Group:
    """The group with other states, and what these stand for."""
    group = replace(group, states_BTD=states_BTD, layouts=tuple(layouts), log_weights_BT=None)
    if all(layout.is_even for layout in set(layouts)):
        return group
    return replace(group, log_weights_BT=group.all_of(lambda one: one.log_weights(states_BTD)))


def embed(weights: EncoderWeights, mel_BFT: Tensor) -> Tensor:
    """Log-mel (B, mels, 2T) -> positioned states (B, T, D)."""
    states = _stem(weights, mel_BFT)
    return states + weights.positions_TD[: states.shape[1]]


def _stem(weights: EncoderWeights, mel_BFT: Tensor) -> Tensor:
    """The two convolutions: (B, mels, 2T) -> (B, T, D)."""
    stem = F.gelu(F.conv1d(mel_BFT, weights.conv1.weight, weights.conv1.bias, padding=1))
    stem = F.gelu(F.conv1d(stem, weights.conv2.weight, weights.conv2.bias, stride=2, padding=1))
    return stem.transpose(1, 2).contiguous()  # what is added to it would keep its layout


def attend(
    states_BTD: Tensor, layer: EncoderLayer, weights: EncoderWeights, reach: int = 0
) -> Tensor:
    """The residual self-attention half of a layer; `reach` as `attend_near` has it, 0: all."""
    return attend_keyed(states_BTD, layer, weights, reach=reach)[0]


def attend_keyed(
    states_BTD: Tensor,
    layer: EncoderLayer,
    weights: EncoderWeights,
    log_weights_BT: Tensor | None = None,
    reach: int = 0,
) -> tuple[Tensor, Tensor]:
    """The same half, and the frames' keys (B, T, D); where states stand for several frames, the
    logarithms of how many count."""
    query, key, value = project(states_BTD, layer.attention, weights.heads)
    if reach:
        context = attend_near(weights.attend, query, key, value, log_weights_BT, reach)
    else:
        context = weights.attend(query, key, value, log_weights_BT)
    return states_BTD + layer.attention.out(merge_heads(context)), merge_heads(key)


def attend_scored(
    states_BTD: Tensor, layer: EncoderLayer, weights: EncoderWeights, aggregation: str
) -> tuple[Tensor, Tensor]:
    """The same half, with the importance (B, T) of each frame: `I[t]` = aggregate over heads of
    the attention that it receives."""
    context, received_BHT = attend_and_score(*project(states_BTD, layer.attention, weights.heads))
    scores_BT = sparsify.aggregate_heads(received_BHT, aggregation)
    return states_BTD + layer.attention.out(merge_heads(context)), scores_BT
