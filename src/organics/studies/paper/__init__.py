"""The paper's figures, tables and claims, each a command: `organics reproduce`.

One module a target, of the target's name, with two functions:

    compute(job: Job) -> Outcome     the numbers, and what they say about the claim
    draw(outcome: Outcome) -> Figure     the picture; computes nothing, reads no file

`catalog` says what there is; what runs it and shows what came of it is `organics.studies.harness`.
"""
