"""The learner: loads the policy, computes token log-probabilities, takes optimizer steps, saves."""
