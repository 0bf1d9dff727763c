"""trunkfold: leak-free k-fold fine-tuning of ensembles that share one frozen trunk.

The subpackages ("rooms") follow the data flow of a run. Each imports only from those listed to its right, and from the
modules of this folder:

    config      options, parsing and validation
    data        tables and photos                    config
    copies      groups of near-duplicates            data
    split       hold-out and folds                   config data copies
    images      views, augmentation, batches         config split
    model       one frozen trunk, K tails            config data images
    evaluation  scores and their intervals           split
    training    lockstep training of all tails       config data split images model evaluation
    output      files of a run, the submission       config data split images model evaluation
    report      page, summary, comparisons           config split evaluation
    tuning      hyperparameter studies               config split training
    deploy      deployment of finished runs          config data split images model evaluation output
    demo        a synthetic competition
"""
