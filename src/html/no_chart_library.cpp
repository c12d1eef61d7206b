#include "html/assets.h"

namespace qwenbench::html {
const std::string_view kChartLibrary;
}  // namespace qwenbench::html
