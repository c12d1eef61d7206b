// A small result with every kind of content: for the file, the schema and the table.
#pragma once

#include "report/result.h"

/// Three variants, two trials of sixty requests, quality over forty requests with pictures and two tasks, warnings,
/// slo, comparisons and a verdict. All values follow from formulas, none from chance.
qwenbench::report::Result sample_result();
