"""trunkfold: leak-free k-fold fine-tuning of ensembles that share one frozen trunk.

The rooms follow the flow of a run. A room imports from the rooms named after it, and from the modules beside them:

    config      options, read and checked
    data        tables and photos                    config
    copies      near-duplicates become groups        data
    split       hold-out and folds                   config data copies
    images      views, augmentation, batches         config split
    model       one frozen trunk, K tails            config data images
    evaluation  scores and their intervals           split
    training    tails in lockstep                    config split images model evaluation
    output      files of a run, the submission       config data split images model evaluation
    report      the page, the summary, comparisons   config split evaluation
    tuning      studies                              config split training
    deploy      a finished run in use                config data split images model evaluation output
    demo        a drawn competition
"""
