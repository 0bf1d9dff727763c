"""trunkfold: leak-free k-fold fine-tuning of ensembles that share one frozen trunk.

The modules follow the flow of a run, each importing only from those above it:

    errors          what the user can mend, said in one message
    cores           how many there are for this process
    config          an experiment: an attribute an option
    strict_yaml     YAML, in which nothing is there twice and nothing is code
    command_line    its complaints name the option, the value and what is wanted
    checks          what options there are, and what cannot be together
    options         experiments from YAML and the command line, checked
    files           files written whole or not at all
    runs            which is the newest, what its metrics say
    pages           self-contained pages from templates
    csv_file        CSV files as texts, what is wrong named by its line
    table           train.csv and test.csv, read and checked
    corrections     photos left out and labels replaced after a look at them
    photos          any picture file as upright RGB
    cache           photos decoded once for all runs
    local_features  what is kept of a photo to find its copies
    candidates      photos that share rare visual words
    verification    whether two photos are copies: their features fit, their pixels agree
    grouping        links become groups
    copies_page     the page to judge them by
    copies          the search, step by step, and its result
    groups          which photos are copies, wherever that is known from
    splits          hold-out and folds
    competition     tables, folds and photos
    views           what the model is shown of a photo when it predicts
    normalization   mean and standard deviation of the photos
    transforms      our augmentations: one warp, one colour matrix, noise from a bank
    augment         what it is shown when it learns
    sheet           samples of that as one picture
    workers         loader processes, and which photo one held when it died
    loaders         fold-balanced batches
    process         device, precision and seeds, by Accelerate
    memory          what fits into the memory of a device, found by trying
    linear          linear maps by the CPU's faster library
    dora            DoRA's forward and backward pass in one matrix product each
    backbone        a timm model cut into a frozen trunk and a tuned tail
    features        what the trunk makes of the photos, streamed or kept
    ensemble        K tails behind one trunk: saved, loaded, predicting
    states          a training's state as one file
    optim           timm's optimizers and schedules over the tails
    lockstep        one batch, one trunk pass, a step of every tail
    experiment      its open options filled in, and what learns
    scores          accuracy, F1, confusion, intervals
    checkpoint      when it is saved, and when there is no time left
    resume          a run's folder begun, or gone on with
    training        the epochs
    predictions     tables of probabilities by image id
    leaks           how well photos are predicted whose copies were learned from
    calibration     whether probabilities mean what they say
    luck            what a leaderboard could show of the same model
    assessment      all that is said of a run's predictions
    consensus       one prediction for all copies of a photo
    label_issues    photos whose label may be wrong
    ablation        what each part of a prediction adds
    results         what a run's folder is given
    blending        several runs as one
    submission      the CSV that is uploaded
    gallery         which photos the report shows
    gradcam         where in a photo the evidence for a class lies
    thumbnails      small pictures of the shown photos
    provenance      versions, commit, device, memory, photo sizes
    shares          classes of each set, and whether they differ by more than chance
    findings        all that the report is made of
    summary         the result as a short text
    advice          what to do next
    figures         the report's figures, as PNG and SVG
    photo_sections  its sections that show photos
    score_sections  its sections about scores
    report          the page
    comparison      runs side by side, and whether their difference is real
    run_table       the same as tables for the terminal
    space           the options that a study searches
    trials          one of its short trainings, on features that all share
    study           storage, processes and their deaths
    study_report    its tables, figures and page

Apart from the flow, demo, demo_drawing, demo_car and demo_canvas draw a synthetic competition to try it all on.
"""
