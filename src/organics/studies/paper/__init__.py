"""The paper's figures, tables and claims, each a command: `organics reproduce`.

Each target is a module of the same name with two functions:

    compute(job: Job) -> Outcome     the numbers, and their verdict on the claim
    draw(outcome: Outcome) -> Figure     the picture; computes nothing, reads no file

`catalog` lists the targets; `organics.studies.harness` runs them and shows the results.
"""
