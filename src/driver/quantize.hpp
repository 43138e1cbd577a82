#pragma once

#include <filesystem>
#include <memory>

#include "driver/commands.hpp"
#include "driver/quantizer.hpp"
#include "driver/source.hpp"

namespace reap {

/// The options with --group-size settled for this model: where none is given the largest that fits the model and
/// --serve-tp, said in the log when that is not 128. `options.write.quantize` is set from then on.
/// @throws Error(bad_input) when no group fits
Options with_w4a16(const Options& options, const Model& model, Log& log);

/// Lets errors be weighed with what `file` says of the inputs of the survivors of a plan of this model, and says in
/// the log which of them saw too few tokens. @throws Error(bad_input) as open_importance(); Error(io)
void use_importance(Options& options, const Source& source, const Plan& plan, const std::filesystem::path& file,
                    Log& log);

/// What computes 4-bit weights, on this rank's device. Collective.
std::unique_ptr<Quantizer> all_make_quantizer(Job& job);

/// A plan of this model that keeps every expert.
Plan keep_all(const Source& source);

/// Model -> the same model with weights of 4 bits. Collective.
void quantize(Job& job);

}  // namespace reap
