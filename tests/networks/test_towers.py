import torch

from diorama.networks.towers import StyleConfig, StyleTower


def pictures() -> torch.Tensor:
    return 2 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1


@torch.no_grad()
def test_one_level_is_told_by_the_mean_and_spread_of_its_features():
    torch.manual_seed(0)
    tower = StyleTower(StyleConfig(styles=3)).eval()
    features = tower.trunk(pictures())
    statistics = torch.cat([features.mean((2, 3)), features.flatten(2).std(-1)], -1)
    assert torch.allclose(tower(pictures()), tower.head(statistics), atol=1e-6)
    assert {name.split(".")[0] for name in tower.state_dict()} == {"trunk", "head"}  # as old models were written


@torch.no_grad()
def test_further_levels_add_their_statistics_to_the_first_one_s():
    torch.manual_seed(0)
    tower = StyleTower(StyleConfig(styles=3, width=8, deeper=(16, 24))).eval()
    seen: list[torch.Tensor] = []
    tower.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    tower(pictures())
    x, statistics = tower.trunk(pictures()), []
    for level in (None, *tower.deeper):
        x = x if level is None else level(x)
        statistics += [x.mean((2, 3)), x.flatten(2).std(-1)]
    assert [s.shape[1] for s in statistics] == [8, 8, 16, 16, 24, 24]
    assert x.shape[2:] == (2, 2)  # 16 pixels, halved by the patch and by each further level
    assert torch.allclose(seen[0], torch.cat(statistics, -1), atol=1e-6)
