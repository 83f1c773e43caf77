// The parts of the page, each a piece of HTML; empty if the document has nothing for it.
#pragma once

#include <span>
#include <string>

#include "audit/page/document.h"

namespace carat::audit::page {

// The table of candidates, with a bar for every interval.
[[nodiscard]] std::string candidates_html(const Section& section);
// Size against mean KLD, with the front.
[[nodiscard]] std::string scatter_html(const Section& section, const Run& run);
// Every candidate beside the closest one, where a document has both.
[[nodiscard]] std::string differences_html(const Section& section, std::span<const Run> runs);
// How often which divergence occurs.
[[nodiscard]] std::string distribution_html(const Section& section);
// Divergence and changed first choices by margin, entropy, position and domain.
[[nodiscard]] std::string breakdowns_html(const Section& section);
// Errors of the tensors, by layer.
[[nodiscard]] std::string tensors_html(const Section& section);
[[nodiscard]] std::string worst_html(const Section& section);
[[nodiscard]] std::string greedy_html(const Section& section);
// How it was measured, in words.
[[nodiscard]] std::string method_html(const Document& document);
// Files, hashes, versions, commands.
[[nodiscard]] std::string provenance_html(const Document& document);

// Style sheet of the page.
[[nodiscard]] std::string style_sheet();

// A figure with a heading and a paragraph about it.
[[nodiscard]] std::string figure_html(const std::string& title, const std::string& about,
                                      const std::string& body, const std::string& classes = {});

// Which colour is which candidate; nothing for a single one.
[[nodiscard]] std::string legend_html(const Section& section);

}  // namespace carat::audit::page
