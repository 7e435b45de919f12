// experiments
