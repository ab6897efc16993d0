#!/bin/sh
# The paper in small, from the command line. Run from the folder above.
set -e
organics analyze examples/figure1a.json             # steady state, eigenvalues, certificate
organics portrait examples/figure1b.json --out portrait.png       # all fixed points, one stable
organics simulate examples/figure3b.json --out trajectory.png     # slow inhibition
organics stability --n 10 --trials 1000 --spectral-norm 2         # how many circuits are stable?
organics train digits --batch-size 32 --learning-rate 3e-3 --epochs 60 --out runs/reader
organics evaluate runs/reader --check               # stable at every test input?
organics reproduce fig1 fig4 table5                 # figures and claims, with a verdict
