"""Studies: a grid of cells from one file, carried out in stages that are shared, kept and never done twice.

A study file says what varies. Every cell is a path through stages: a model is compressed, trained or fine-tuned, and
measured. A stage is named by the digest of all that decides its outcome, so equal stages of any cells and studies are
the same folder of a `Store`.
"""
