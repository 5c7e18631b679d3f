"""A generator of each pool in one run: what is shared, what is named after the pool, and in which order."""

from fakes import given_generator, mini_pipeline

from ajbench.pipeline import pool_stages

FEW = ("mix.real=shots=1", "evaluate.controls=[all_real]", "evaluate.synthetic_only=false")
POOLS = (*FEW, "evaluate.pools=[train, real]")


def keys(stages):
    return {stage.fingerprint for stage in stages}


def test_a_run_has_the_stages_of_each_pool_once():
    made = mini_pipeline(*POOLS)
    together = pool_stages.stages(made)
    alone = [mini_pipeline(*FEW, f"generator.pool={pool}").stages() for pool in ("train", "real")]
    assert len(together) == len(keys(together))
    assert keys(together) == keys(alone[0]) | keys(alone[1])
    assert keys(made.stages()) == keys(alone[0]), "those of the recipe alone"
    assert keys(pool_stages.evaluations(made)) == keys(s for s in alone[1] if s.name.startswith("eval"))


def test_what_depends_on_the_pool_is_named_after_it_and_the_rest_is_shared():
    made = mini_pipeline(*POOLS)
    of = {
        pool: [s for s in pool_stages.stages(made) if s.what.endswith(f"pool {pool}")]
        for pool in ("train", "real")
    }
    for found in of.values():
        assert {"train-gen", "invert", "synth", "train-cls", "eval-cls", "eval-gen"} == {
            s.name for s in found
        }
    shared = keys(pool_stages.stages(made)) - keys(of["train"]) - keys(of["real"])
    names = {s.title for s in pool_stages.stages(made) if s.fingerprint in shared}
    assert any("mini mix.real=all" in name for name in names) and any(name == "prepare" for name in names)
    assert not any("G" in name.partition("mini")[2] for name in names)


def test_every_stage_comes_after_what_it_needs_and_classifiers_are_neighbours():
    for more in ((), ("evaluate.folds=[1, 2]",), ("synth.judge=reference",)):
        stages = pool_stages.stages(mini_pipeline(*POOLS, *more))
        seen = set()
        for stage in stages:
            assert keys(stage.needs) <= seen
            seen.add(stage.fingerprint)
    names = [stage.name for stage in pool_stages.stages(mini_pipeline(*POOLS))]
    first, last = names.index("train-cls"), len(names) - names[::-1].index("train-cls")
    assert set(names[first:last]) == {"train-cls"}


def test_a_table_and_a_given_generator_have_one_pool(tmp_path):
    given = given_generator(tmp_path / "given")
    one = [
        mini_pipeline(*POOLS, expression="tables/a11", base="mini"),
        mini_pipeline(*POOLS, generator=given),
        mini_pipeline(*FEW, "evaluate.pools=[train]"),
    ]
    for made in one:
        assert made.pools == [made]
        assert keys(pool_stages.stages(made)) == keys(made.stages())


def test_pools_that_are_not_compared_leave_fingerprints_as_they_are():
    assert keys(mini_pipeline(*FEW).stages()) == keys(mini_pipeline(*POOLS).stages())
