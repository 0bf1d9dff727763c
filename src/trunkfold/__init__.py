"""trunkfold: leak-free k-fold fine-tuning of ensembles that share one frozen trunk.

The rooms follow the flow of a run. A room imports only from the rooms that it names, and from the modules beside them:

    config      options, read and checked
    data        tables and photos                    config
    copies      near-duplicates become groups        data
    split       hold-out and folds                   config data copies
    images      views, augmentation, batches         config split
    model       one frozen trunk, K tails            config data images split
    evaluation  scores and their intervals           split
    training    tails in lockstep                    config data split images model evaluation
    output      what a run's folder is given         config data split images model evaluation
    report      the page, the summary, comparisons   config split evaluation
    tuning      studies                              config data split images model training
    deploy      a finished run in use                config data split images model evaluation output
    demo        a drawn competition
"""
