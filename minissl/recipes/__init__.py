"""Experiments end to end: stages that train, compact and measure, and the tables they fill.

================ =================================================================================
stages           what a recipe is made of; runs stages one after the other, skips finished ones
training         the stage that trains a network as a solver says, and goes on where it was stopped
measuring        what a table says about a network: error, structure, FLOP, time
decays           which strength of group lasso to begin with
search           the decay that leaves so many FLOP, or keeps an error, by short runs
bisection        ... how the next decay is chosen
targets          ... what is aimed at, and whether a trial reaches it
trials           ... the stage that makes one short run and measures what it left
trial_length     ... how short it may be
demo             the main job: LeNet on the digits inside the package
experiments      tables: which files train which row
experiment_files the same as TOML files, and what may be wrong with them
experiment_nets  ... whether their solvers can train what the rows ask for
row_stages       what is done for a row: train, prune, compact, measure, time
pruning          prune a network at random to the structure of another
parallel         jobs side by side, by dask.distributed
reproduce        an experiment with several seeds; the median run is kept
retiming         the times of a kept result, taken again
result_folder    ... whether its result may be written where it is to be
checking         whether a kept result still says what its weights do
figure_checking  ... and whether its figures follow from each other and from its logs
paper            the published rows to compare with
speed            an experiment of speed-ups: nothing is trained, sparse weights are timed
speed_timing     ... layers timed densely and sparsely by turns, and compared
speed_experiments, speed_files, speed_checking, paper_speeds
                 ... as above, of speed-ups
published_matrices
                 ... the sparse weights that the authors published
toml_tables      what the files of all experiments share
================ =================================================================================
"""
