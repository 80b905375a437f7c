"""What the numbers say, written after they were seen. They are of the full study only."""

READINGS: dict[str, str] = {
    "The nine aggregations": (
        "No order of the nine can be read off with certainty: differences among the mean and L2 aggregations are about as large as a figure's own error. "
        "(var, var) is among the worst in both cuts. Cut apart, neurons at 20 and 35 % lose less by the L2 norm over the tokens than by their mean (0.95 and 0.98 against "
        "1.21 and 1.18; 2.29 and 2.31 against 2.70 and 2.79), and variance over blocks is worst; channels hardly care, but for variance over blocks."
    ),
    "Every width criterion against its reverse and chance": (
        "For neurons every criterion but weight magnitude beats chance by far, and eight of them lie within 0.3 nats of each other. For channels magnitude and "
        "leverage are far worse than chance. For heads the default, activation, is worse than chance here (2.42 against 1.44 to 1.95), and no better than its own "
        "reverse; criteria that weigh a head by what the output projection makes of it, or by gradients, halve the damage. Reversed rankings were judged on one "
        "block of each text only, so small differences from them mean nothing."
    ),
    "One round or several": (
        "Against the paper, rounds help where heads, neurons and channels go together (35 %: 4.21, 3.59, 3.34 for T = 1, 2, 4), and harm where layers go by block "
        "importance. For channels alone they change little. One calibration set, one seed."
    ),
    "Depth: which layers": (
        "Up to six layers the criteria differ by little; a run is as good as scattered layers. At ten, criteria that look at the loss or the divergence (ppl, kl, greedy) "
        "lose about 0.4 nats less than a run and 0.3 less than block importance. Greedy removal, which costs the most, is not better than ppl."
    ),
    "Calibration text against criterion": (
        "In these cuts the criterion mattered more than the text, by a factor of 1.5 to 4; activation is the worst of the three throughout. The two texts are both edited English "
        "prose: other domains may lie further apart."
    ),
    "The paper's findings at this scale": (
        "The two about aggregations cannot be decided with so few blocks. What holds: the loss judges layers better than block importance, and scattered layers beat a run before "
        "retraining. What does not: depth hurts less than width here, and several rounds pay for a joint cut of width. The default criterion for heads may be the reason for "
        "both, which was not tested. Nothing was retrained, and the paper's order changes after retraining."
    ),
}
"""Title of a section -> a few sentences."""
