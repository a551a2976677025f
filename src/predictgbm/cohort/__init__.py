"""A cohort: its samplesheet, the checks of its exams, and the choice of the follow-up that is scored."""
