#include "convert/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "convert/code_stream.h"
#include "convert/drafter.h"
#include "convert/encoded_stream.h"
#include "convert/importance.h"
#include "convert/inspect_codes.h"
#include "convert/mmproj.h"
#include "convert/parts.h"
#include "convert/plan.h"
#include "convert/report_file.h"
#include "convert/resumable_target.h"
#include "convert/tied_head.h"
#include "convert/transcode.h"
#include "quant/blocks.h"
#include "quant/coded_rows.h"

namespace carat::convert {
namespace {

constexpr int64_t kSampleSpans = 16;
constexpr int64_t kHeadBytes = int64_t{64} << 20;  // more than any metadata and tokenizer

struct FormatName {
  Format format;
  const char* name;
};
constexpr FormatName kFormats[] = {{Format::kGgufQ4_0, "gguf-q4_0"},
                                   {Format::kGgufGoogle, "gguf-google"},
                                   {Format::kGgufBf16, "gguf-bf16"},
                                   {Format::kGguf, "gguf"},
                                   {Format::kHfBf16, "hf-bf16"},
                                   {Format::kW4A16, "w4a16-ct"},
                                   {Format::kMobileTransformers, "mobile-transformers"},
                                   {Format::kMobileCt, "mobile-ct"},
                                   {Format::kMmprojBf16, "mmproj-bf16"}};

// Bytes of the source that are done, told to the caller.
struct ProgressCount {
  const ConvertOptions& options;
  int64_t done = 0, total = 0;

  void add(int64_t bytes, const std::string& note) {
    done += bytes;
    if (options.progress) options.progress(done, total, note);
  }
};

// One conversion on its way.
class Conversion {
 public:
  Conversion(const ConvertOptions& options, const PlanSource& source, const SideFiles& side)
      : options_(options),
        model_(*source.model),
        side_(side),
        pool_(options.threads),
        transcoder_(pool_, options.stop),
        plan_(make_plan(source, options)),
        items_(plan_.items),
        findings_(items_.size()),
        progress_{options},
        hasher_(model_.source->paths()) {
    if (is_directory(options.format)) config_json_ = target_config(source, plan_, options);
    if (options.encoded != nullptr) take_encoded();
    if (source.importance != nullptr) note_without_importance();
  }

  void run() {
    if (options_.undo_scale_shift) undo_shift();
    sample();
    for (const Item& item : items_) progress_.total += item.source_bytes();
    while (const std::optional<size_t> surprise = write()) judge_from(*surprise);
  }

  std::vector<FileDigest> take_source_files() { return std::move(source_files_); }
  std::vector<FileDigest> take_target_files() { return std::move(target_files_); }

  void report(ConvertReport* out) const;

 private:
  // What is already encoded is neither judged nor rounded.
  void take_encoded() {
    CHECK(!is_directory(options_.format));
    encoded_.resize(items_.size());
    for (size_t i = 0; i < items_.size(); ++i) {
      Item& item = items_[i];
      if (item.is_matrix) encoded_[i] = options_.encoded->find(item.name);
      if (!encoded_[i]) continue;
      item.to = encoded_[i]->dtype;
      item.conditional = item.judge = false;
      item.may_round = true;
      item.note.clear();
    }
  }

  std::string digest() const {
    const std::string plan = plan_digest(options_, items_);
    return options_.encoded == nullptr ? plan : digest_with(plan, items_, encoded_);
  }

  // The per-layer table is only looked up: what its columns meet depends on the token.
  void note_without_importance() {
    int64_t n = 0;
    for (const Item& item : items_) {
      n += item.is_matrix && info(item.to).block_elements > 1 && !item.source.column_weights &&
           item.ref.kind != model::TensorKind::kPleTable;
    }
    if (n == 0) return;
    notes_.push_back(
        fmt::format("{} of the matrices are not in {}: all of their columns count "
                    "alike",
                    n, options_.imatrix));
  }

  void undo_shift() {
    CodedReport found;
    for (Item& item : items_) {
      if (item.how == Item::How::kLiteral || !has_small_groups(item.source)) continue;
      if (item.how != Item::How::kScales) {
        find_shift(pool_, item.source, nullptr, true, 0, found);
      }
      item.source.undo_shift = true;
    }
    if (!found.shift || !found.shift->follows_min_max()) {
      throw Error({"the scales are not 8/7.5 too large, so there is nothing to undo",
                   options_.source, "--undo-scale-shift",
                   "groups of 32 whose largest code is -8 or 7",
                   found.shift ? fmt::format("{} of {} groups with another", found.shift->foreign,
                                             found.shift->groups)
                               : "no such groups",
                   "convert it without this option"});
    }
    notes_.push_back(fmt::format(
        "scales that were 8/7.5 too large are undone; the codes of {} of {} groups are not known "
        "for certain: there a 7 may have been an 8",
        found.shift->ambiguous, found.shift->groups));
  }

  // Finds the matrices off the lattice by a few thousand blocks of each.
  void sample() {
    for (Item& item : items_) {
      const DType from = item.source.dtype;
      if (!item.conditional || !(is_float(from) || quant::is_coded(from))) continue;
      const LatticeStats found = transcoder_.sample(item.source, kSampleSpans);
      if (is_off(item, found)) keep(item, found, true);
    }
  }

  bool is_off(const Item& item, const LatticeStats& so_far) const {
    if (so_far.refused > 0) return true;
    return so_far.blocks - so_far.blocks_on_lattice > allowed_off_lattice(item, options_);
  }

  std::vector<io::TensorSpec> specs() const {
    std::vector<io::TensorSpec> specs;
    for (const Item& item : items_) specs.push_back({item.name, item.to, item.shape});
    return specs;
  }

  // Writes everything, or stops at the first item that turned out to lie off the lattice where the
  // sample did not see it: its type is declared in the file's head already, so the file is begun
  // anew.
  std::optional<size_t> write() {
    int64_t bytes = kHeadBytes;
    for (const Item& item : items_) bytes = add_or_throw(bytes, item.target_bytes(), "the result");
    check_disk_space(options_.target, bytes);
    TargetParts parts = is_directory(options_.format)
                            ? hf_parts(options_, model_, side_, config_json_, specs())
                            : gguf_parts(options_, model_, side_, specs());
    ResumableTarget target(options_, std::move(parts), digest(), model_.source->paths());
    size_t done = take_over(target);
    try {
      for (; done < items_.size(); ++done) {
        if (!write_item(done, target.tensors())) return done;
        target.mark(findings_[done]);
      }
      finish(target);
    } catch (const Interrupted&) {
      target.leave();
      throw;
    }
    return std::nullopt;
  }

  // Goes on from what an earlier run left; answers how many items are done.
  size_t take_over(ResumableTarget& target) {
    const std::vector<Findings> earlier = target.take_over();
    for (size_t i = 0; i < earlier.size(); ++i) {
      findings_[i] = earlier[i];
      check_loss(items_[i], findings_[i]);
      progress_.add(items_[i].source_bytes(), items_[i].name);
    }
    return earlier.size();
  }

  // The checksums come first: a damaged source must not get a result.
  void finish(ResumableTarget& target) {
    if (options_.stop != nullptr && options_.stop->load()) throw Interrupted();
    source_files_ = hasher_.finish(options_.stop, [&](int64_t done, int64_t total) {
      if (options_.progress) options_.progress(done, total, "checksum of the source");
    });
    check_recorded(source_files_);
    target.finish();
    target_files_ = digests_of(target.tensors().files());
  }

  bool write_item(size_t i, io::TensorWriter& writer) {
    const Item& item = items_[i];
    writer.begin(item.name);
    switch (item.how) {
      case Item::How::kLiteral:
        writer.append(item.literal);
        return true;
      case Item::How::kCodes:
        write_codes(i, &writer);
        return true;
      case Item::How::kScales:
        write_scales(item, writer);
        return true;
      case Item::How::kTranscode:
        return transcode(i, writer);
    }
    CHECK(false);
  }

  // Codes come first: their scales are kept until it is their turn.
  void write_codes(size_t i, io::TensorWriter* writer) {
    const Item& item = items_[i];
    CodeRequest request;
    request.layout = item.layout;
    if (writer != nullptr) {
      request.sink = [&](std::span<const std::byte> bytes) { writer->append(bytes); };
      request.advance = [&](int64_t bytes) { advance(bytes, item); };
    }
    request.keep_going = [&](const Findings& f) {
      check_loss(item, f);
      return true;
    };
    stream_codes(pool_, options_.stop, item.source, request, &findings_[i], &scales_[item.module]);
  }

  // After a conversion was taken up behind the codes, they are made once more.
  void write_scales(const Item& item, io::TensorWriter& writer) {
    if (!scales_.contains(item.module)) {
      const auto codes = std::find_if(items_.begin(), items_.end(), [&](const Item& other) {
        return other.how == Item::How::kCodes && other.module == item.module;
      });
      CHECK(codes != items_.end());
      write_codes(static_cast<size_t>(codes - items_.begin()), nullptr);
    }
    writer.append(scales_[item.module]);
    scales_.erase(item.module);
  }

  void advance(int64_t bytes, const Item& item) {
    progress_.add(bytes, item.name);
    hasher_.follow(progress_.done, options_.stop);
  }

  // Throws Error for a loss that was not accepted.
  void check_loss(const Item& item, const Findings& f) {
    if (item.how == Item::How::kTranscode) {
      if (item.may_round || item.conditional || f.weights_bit_exact == f.weights) return;
      require(Loss::kRoundedWeights,
              fmt::format("{} of the first {} weights of {} change",
                          f.weights - f.weights_bit_exact, f.weights, item.source.name));
      return;
    }
    if (const int64_t n = f.groups - f.groups_exact - f.groups_rounded_scale; n > 0) {
      require(Loss::kRoundedWeights,
              fmt::format("the weights of {} are on no lattice of the format ({} of the first "
                          "{} groups)",
                          item.source.name, n, f.groups));
    }
    if (f.groups_rounded_scale > 0) {
      require(Loss::kRoundedScales, fmt::format("{} of the first {} scales of {} are rounded to {}",
                                                f.groups_rounded_scale, f.groups, item.source.name,
                                                name_of(item.layout.scales)));
    }
  }

  void require(Loss loss, const std::string& what) {
    require_accepted(loss, what, options_, &plan_.losses);
  }

  bool transcode(size_t i, io::TensorWriter& writer) {
    const Item& item = items_[i];
    TranscodeRequest request;
    request.to = item.to;
    request.judge = item.judge;
    request.sink = [&](std::span<const std::byte> bytes) { writer.append(bytes); };
    request.advance = [&](int64_t bytes) { advance(bytes, item); };
    request.keep_going = [&](const Findings& f) {
      check_loss(item, f);
      return !item.conditional || !is_off(item, f.lattice);
    };
    if (!encoded_.empty() && encoded_[i]) {
      stream_encoded(pool_, options_.stop, item.source, *encoded_[i], request, &findings_[i]);
      return true;
    }
    return transcoder_.run(item.source, request, &findings_[i]);
  }

  // Reads the rest to know of every surprise before the second pass.
  void judge_from(size_t first) {
    progress_.total = progress_.done;
    for (const Item& item : items_) progress_.total += item.source_bytes();
    for (size_t i = first; i < items_.size(); ++i) {
      Item& item = items_[i];
      if (!item.conditional) continue;
      TranscodeRequest request;
      request.judge = true;
      request.keep_going = [&](const Findings& f) { return !is_off(item, f.lattice); };
      if (!transcoder_.run(item.source, request, &findings_[i])) {
        keep(item, findings_[i].lattice, false);
      }
    }
  }

  const ConvertOptions& options_;
  const model::Model& model_;
  const SideFiles& side_;
  ThreadPool pool_;
  Transcoder transcoder_;
  Plan plan_;
  std::vector<Item>& items_;                           // the plan's
  std::vector<std::optional<EncodedTensor>> encoded_;  // by item; empty: none at all
  std::vector<Findings> findings_;
  std::unordered_map<std::string, std::vector<std::byte>> scales_;  // by module, until written
  std::vector<std::string> notes_;
  Json config_json_;  // of a directory
  ProgressCount progress_;
  FileHasher hasher_;
  std::vector<FileDigest> source_files_, target_files_;
};

// A Q4_0 source is on its lattice by nature.
LatticeStats copied_blocks(const Findings& f) {
  LatticeStats s;
  s.weights = s.weights_bit_exact = f.weights;
  s.blocks = s.blocks_on_lattice = f.weights / quant::kBlock;
  return s;
}

TensorReport report_item(const Item& item, const Findings& f) {
  TensorReport t;
  t.name = item.name;
  t.source_name = item.source.name;
  t.class_name = class_name(item.ref.kind);
  const bool values = item.how == Item::How::kTranscode || item.how == Item::How::kCodes;
  t.from = values ? item.source.dtype : item.to;
  t.to = item.element_type();
  t.shape = item.shape;
  t.bytes = item.target_bytes();
  t.is_matrix = item.is_matrix;
  t.note = item.note;
  set_findings(t, f);
  if (item.is_matrix && item.to == DType::kQ4_0 && item.source.dtype == DType::kQ4_0) {
    t.lattice = copied_blocks(f);
    t.judged = true;
  }
  // The sample saw some; by now all are known.
  if (item.is_matrix && item.to != DType::kQ4_0 && t.judged && item.note.ends_with("lattice")) {
    t.note = fmt::format("{} of {} blocks are off the Q4_0 lattice",
                         t.lattice.blocks - t.lattice.blocks_on_lattice, t.lattice.blocks);
  }
  return t;
}

void Conversion::report(ConvertReport* out) const {
  for (size_t i = 0; i < items_.size(); ++i) {
    add_tensor(*out, report_item(items_[i], findings_[i]), items_[i].source_bytes());
  }
  out->losses = plan_.losses;
  out->notes.insert(out->notes.end(), notes_.begin(), notes_.end());
}

// What load_model skips, a directory may keep.
std::vector<std::string> notes_of(const model::Model& model, Format format, bool from_hf) {
  std::vector<std::string> notes;
  bool towers = false;
  for (const std::string& note : model.notes) {
    const bool tower =
        note.find("vision") != std::string::npos || note.find("audio") != std::string::npos;
    towers = towers || tower;
    const auto kind = coded_kind(format);
    const bool shared = kind && is_mobile(*kind) && !model.config().tied_embeddings &&
                        note.find("K and V") != std::string::npos;
    const bool carried = (tower || shared) && from_hf && is_directory(format);
    if (!carried) notes.push_back(note);
  }
  if (towers && from_hf) {
    notes.emplace_back(is_directory(format) ? "the parts for images and sound are carried over"
                                            : "--to mmproj-bf16 writes the parts for images and "
                                              "sound into a file of their own");
  }
  return notes;
}

void check_imatrix(const ConvertOptions& options, const io::Checkpoint& checkpoint) {
  if (options.imatrix.empty()) return;
  if (!is_directory(options.format) && options.format != Format::kMmprojBf16 &&
      !is_towers_only(checkpoint) && !is_drafter(checkpoint)) {
    return;
  }
  throw Error({"an importance matrix has no use in this conversion", options.imatrix, "--imatrix",
               "a GGUF file of a text model as the result", name_of(options.format), ""});
}

void add_hint(ConvertReport& r) {
  const bool to_q4_0 =
      r.options.format == Format::kGgufQ4_0 || r.options.format == Format::kGgufGoogle;
  if (!to_q4_0 || r.matrices_kept * 2 <= r.matrices) return;
  if (r.lattice.blocks_on_lattice * 2 > r.lattice.blocks) return;
  r.hint =
      "most matrices do not lie on the Q4_0 lattice: this checkpoint was not trained for it. "
      "Convert its quantization-aware sibling, or round with --round";
}

}  // namespace

const char* name_of(Format format) {
  for (const FormatName& f : kFormats) {
    if (f.format == format) return f.name;
  }
  CHECK(false);
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const FormatName& f : kFormats) names.emplace_back(f.name);
  return names;
}

Format format_from_name(std::string_view name) {
  for (const FormatName& f : kFormats) {
    if (name == f.name) return f.format;
  }
  throw Error({"unknown format", "", "--to", fmt::format("{}", fmt::join(format_names(), ", ")),
               std::string(name), ""});
}

bool is_directory(Format format) {
  return format == Format::kHfBf16 || coded_kind(format).has_value();
}

ConvertReport convert(const ConvertOptions& options) {
  CHECK(options.threads >= 1 && options.min_lattice_share >= 0 && options.min_lattice_share <= 1);
  const auto begin = std::chrono::steady_clock::now();
  ConvertReport report;
  report.options = options;

  io::Checkpoint checkpoint = io::open_checkpoint(options.source);
  check_imatrix(options, checkpoint);
  if (options.format == Format::kMmprojBf16 || is_towers_only(checkpoint)) {
    return convert_towers(options, checkpoint);
  }
  if (is_drafter(checkpoint)) return convert_drafter(options, checkpoint);
  check_target(options, *checkpoint.tensors);
  const SideFiles side = read_side_files(checkpoint);
  const Json hf_config = checkpoint.config;
  const model::StoredTensors stored(checkpoint, model::config_of(checkpoint));
  const model::Model model = model::load_model(std::move(checkpoint));
  check_tied_head(model.config(), *model.source, stored, options.stop);
  std::optional<Importance> importance;
  if (!options.imatrix.empty()) importance.emplace(options.imatrix);
  const PlanSource source{&model, &stored, hf_config.is_object() ? &hf_config : nullptr,
                          importance ? &*importance : nullptr};
  report.notes = notes_of(model, options.format, source.hf_config != nullptr);
  for (const std::string& pattern : unused_patterns(options.recipe, model.config())) {
    report.notes.push_back(fmt::format("recipe: no matrix of the model fits '{}'", pattern));
  }

  Conversion conversion(options, source, side);
  conversion.run();
  conversion.report(&report);
  report.source_files = conversion.take_source_files();
  report.target_files = conversion.take_target_files();
  add_hint(report);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

}  // namespace carat::convert
