#include "shard/pulse.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/check.hpp"
#include "shard/host_name.hpp"
#include "shard/operations.hpp"
#include "shard/pulse_mail.hpp"

namespace reap {
namespace {

using namespace pulse_mail;

constexpr double kLookSeconds = 1e-3;     // between looks for messages
constexpr double kReportSeconds = 0.2;    // between messages to and from a rank,
constexpr double kSecondsPerRank = 5e-4;  // and no more of them than rank 0 deals with beside its work
constexpr std::size_t kRanksListed = 16;

/// Time as the beats of this rank see it: between two of them at most `longest` passes. So a rank that was suspended
/// for an hour does not think that the others were silent for one.
class AttentiveClock {
 public:
  explicit AttentiveClock(double longest) : longest_{longest} {}

  void beat() {
    const auto now = std::chrono::steady_clock::now();
    seconds_ += std::min(std::chrono::duration<double>(now - before_).count(), longest_);
    before_ = now;
  }
  double seconds() const { return seconds_; }

 private:
  double longest_;
  double seconds_ = 0;
  std::chrono::steady_clock::time_point before_ = std::chrono::steady_clock::now();
};

/// One end of the star.
class End {
 public:
  End(const Comm& world, double timeout)
      : timeout_{timeout > 0 ? timeout : std::numeric_limits<double>::infinity()},
        interval_{std::min(std::max(kReportSeconds, kSecondsPerRank * world.size()), timeout_ / 20)},
        hosts_{world.all_gather(host_name())},
        clock_{timeout_ / 4} {
    check_mpi(MPI_Comm_dup(world.handle(), &comm_), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }
  virtual ~End() = default;
  End(const End&) = delete;
  End& operator=(const End&) = delete;

  void beat() {
    operations::beat();
    if (failure_) fail(ExitCode::peer, "{}", *failure_);
    clock_.beat();
    if (clock_.seconds() < next_look_) return;
    next_look_ = clock_.seconds() + kLookSeconds;
    look();
  }

  virtual void say(const Pulse::Words& words) = 0;
  virtual const Pulse::Words& heard(int rank) const = 0;
  virtual void order(int rank, const Pulse::Words& words) = 0;
  virtual const Pulse::Words& ordered() const = 0;
  /// Nothing more will come.
  virtual void take_leave() = 0;
  /// The job ends with an error: what is under way is left to itself.
  virtual void let_go() = 0;

 protected:
  /// Receives, sends and judges, as far as anything is due.
  virtual void look() = 0;

  [[noreturn]] void give_up(std::string why) {
    failure_ = std::move(why);
    fail(ExitCode::peer, "{}", *failure_);
  }
  void look_at_once() { next_look_ = 0; }
  std::string name(int rank) const {
    return fmt::format("rank {} (host {})", rank, hosts_[static_cast<std::size_t>(rank)]);
  }
  std::string silence_of(int rank, const Message& last, double seconds) const {
    const std::string who = fmt::format("{} has not answered for {:.0f} s", name(rank), seconds);
    return last.steps > 0 ? who + ", last heard of in " + place_of(last) : who;
  }
  double now() const { return clock_.seconds(); }
  double timeout() const { return timeout_; }
  double interval() const { return interval_; }
  MPI_Comm comm() const { return comm_; }

 private:
  double timeout_;
  double interval_;
  std::vector<std::string> hosts_;
  AttentiveClock clock_;
  double next_look_ = 0;
  std::optional<std::string> failure_;  // every later beat says it again: it may have been called below an all_try
  // Never freed: a message that comes late, to a rank that has taken leave, must not be taken for one of the next
  // communicator, which would get the same number.
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// A rank other than 0.
class Point final : public End {
 public:
  using End::End;

  void say(const Pulse::Words& words) override {
    if (words == said_) return;
    said_ = words;
    next_report_ = 0;
    look_at_once();
  }
  const Pulse::Words& ordered() const override { return centre_.words; }
  const Pulse::Words& heard(int) const override { REAP_CHECK(false, "only rank 0 hears the others' words"); }
  void order(int, const Pulse::Words&) override { REAP_CHECK(false, "only rank 0 gives orders"); }

  void take_leave() override {
    if (centre_.last != 0) return let_go();
    Message last = message_now(said_);
    last.last = 1;
    sender_.send_last(last, 0, comm());
  }
  void let_go() override { sender_.let_go(); }

 private:
  void look() override {
    while (receive(comm(), centre_) >= 0) heard_at_ = now();
    if (centre_.last != 0) return;
    if (now() >= next_report_ && sender_.send(message_now(said_), 0, comm())) next_report_ = now() + interval();
    if (now() - heard_at_ > timeout()) give_up(silence_of(0, centre_, now() - heard_at_));
  }

  Pulse::Words said_{};
  Message centre_;  // the last from there
  double heard_at_ = 0;
  double next_report_ = 0;
  Sender sender_;
};

/// Rank 0.
class Centre final : public End {
 public:
  Centre(const Comm& world, double timeout) : End(world, timeout), peers_(static_cast<std::size_t>(world.size())) {}

  void say(const Pulse::Words& words) override { peers_[0].heard.words = words; }
  const Pulse::Words& heard(int rank) const override { return peers_[static_cast<std::size_t>(rank)].heard.words; }
  const Pulse::Words& ordered() const override { return peers_[0].order; }

  void order(int rank, const Pulse::Words& words) override {
    Peer& peer = peers_[static_cast<std::size_t>(rank)];
    if (words == peer.order) return;
    peer.order = words;
    if (rank == 0) return;
    put_down(rank);
    look_at_once();
  }

  void take_leave() override {
    for (std::size_t rank = 1; rank < peers_.size(); ++rank) {
      Message last = message_now(peers_[rank].order);
      last.last = 1;
      if (peers_[rank].heard.last == 0) peers_[rank].sender.send_last(last, static_cast<int>(rank), comm());
    }
    let_go();
  }
  void let_go() override {
    for (Peer& peer : peers_) peer.sender.let_go();
  }

 private:
  struct Peer {
    Message heard;  // the last
    double heard_at = 0;
    Pulse::Words order{};
    bool is_due = false;  // is in due_
    Sender sender;
  };

  void look() override {
    receive_all();
    std::erase_if(due_, [&](int rank) { return send(rank); });
    if (now() < next_round_) return;
    next_round_ = now() + interval();
    for (int rank = 1; std::cmp_less(rank, peers_.size()); ++rank) {
      if (!send(rank)) put_down(rank);
    }
    take_down(peers_[0], message_now(peers_[0].heard.words));
    judge();
  }

  void receive_all() {
    Message message;
    for (int rank = receive(comm(), message); rank >= 0; rank = receive(comm(), message)) {
      Peer& peer = peers_[static_cast<std::size_t>(rank)];
      take_down(peer, message);
      peer.heard_at = now();
    }
  }

  void take_down(Peer& peer, const Message& message) {
    if (message.steps > peer.heard.steps) progress_at_ = now();
    peer.heard = message;
  }

  /// To be sent its order as soon as it takes one.
  void put_down(int rank) {
    Peer& peer = peers_[static_cast<std::size_t>(rank)];
    if (!std::exchange(peer.is_due, true)) due_.push_back(rank);
  }

  bool send(int rank) {
    Peer& peer = peers_[static_cast<std::size_t>(rank)];
    const bool done = peer.heard.last != 0 || peer.sender.send(message_now(peer.order), rank, comm());
    if (done) peer.is_due = false;
    return done;
  }

  void judge() {
    const bool stuck = now() - progress_at_ > timeout();
    // The others soon wait for one that is silent: when all of them do, it is the cause, though its time is not yet
    // over.
    const double patience = stuck ? timeout() / 2 : timeout();
    std::vector<std::string> silent;
    for (std::size_t rank = 1; rank < peers_.size(); ++rank) {
      const Peer& peer = peers_[rank];
      const double silence = now() - peer.heard_at;
      if (peer.heard.last == 0 && silence > patience)
        silent.push_back(silence_of(static_cast<int>(rank), peer.heard, silence));
    }
    if (!silent.empty()) give_up(joined(silent));
    if (!stuck) return;
    std::vector<std::string> places;
    for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
      places.push_back(fmt::format("{} in {}", name(static_cast<int>(rank)), place_of(peers_[rank].heard)));
    }
    give_up(fmt::format("no rank has got on with its work for {:.0f} s: {}", timeout(), joined(places)));
  }

  static std::string joined(const std::vector<std::string>& texts) {
    std::string text;
    for (std::size_t i = 0; i < std::min(texts.size(), kRanksListed); ++i) text += (i > 0 ? "; " : "") + texts[i];
    if (texts.size() > kRanksListed) text += fmt::format("; and {} more ranks", texts.size() - kRanksListed);
    return text;
  }

  std::vector<Peer> peers_;  // [rank]; the first is this one
  std::vector<int> due_;     // ranks that have not been sent their newest order
  double next_round_ = 0;
  double progress_at_ = 0;
};

}  // namespace

struct Pulse::Impl {
  std::unique_ptr<End> end;
  int exceptions = std::uncaught_exceptions();
};

Pulse::Pulse(const Comm& world, std::chrono::duration<double> timeout) : impl_{std::make_unique<Impl>()} {
  if (world.rank() == 0) {
    impl_->end = std::make_unique<Centre>(world, timeout.count());
  } else {
    impl_->end = std::make_unique<Point>(world, timeout.count());
  }
}

Pulse::~Pulse() {
  try {
    if (std::uncaught_exceptions() > impl_->exceptions) {
      impl_->end->let_go();
    } else {
      impl_->end->take_leave();
    }
  } catch (const std::exception&) {  // MPI has failed: the job is ending anyway
  }
}

void Pulse::beat() { impl_->end->beat(); }

void Pulse::say(const Words& words) { impl_->end->say(words); }

const Pulse::Words& Pulse::heard(int rank) const { return impl_->end->heard(rank); }

void Pulse::order(int rank, const Words& words) { impl_->end->order(rank, words); }

const Pulse::Words& Pulse::ordered() const { return impl_->end->ordered(); }

}  // namespace reap
