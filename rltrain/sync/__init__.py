"""Weight sync: brings the learner's weights to every engine and proves that they arrived.

    export -> write -> stage (digests come back) -> compare -> pause -> commit -> version -> resume
    -> probe (log-probabilities of one sequence, learner against engine)

`full.FileSync` sends every parameter, `adapter.AdapterSync` a LoRA adapter; both pass through a
private folder in memory. `worker_ext` is the half that runs inside the engine, `digest` and `probe`
are the two proofs. Packages meet through `engines.Engines`, which the engine client satisfies.
"""
