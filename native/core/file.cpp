#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

namespace topknot {
namespace {

/// The system would take the name up to the NUL for the whole.
void expectPath(const std::string& path) {
  require(!path.empty() && path.find('\0') == std::string::npos, ErrorCode::argument,
          "path: expected the name of a file but received ",
          path.empty() ? "an empty string" : "one that has a NUL character");
}

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
  expectPath(path);
  // Non-blocking, so that a FIFO is refused below instead of waiting here for a writer.
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  require(fd_ >= 0, ErrorCode::io, "path: could not open '", path, "': ", std::strerror(errno));
  struct stat s;
  const bool regular = fstat(fd_, &s) == 0 && S_ISREG(s.st_mode);
  if (!regular) close(fd_);
  require(regular, ErrorCode::io, "path: expected a regular file but '", path, "' is none");
  identity_.bytes = s.st_size;
  identity_.stamp = concat(s.st_dev, ":", s.st_ino, ":", s.st_mtim.tv_sec, ".", s.st_mtim.tv_nsec);
}

InputFile::~InputFile() { close(fd_); }

void InputFile::read(int64_t offset, std::span<char> out) const {
  for (size_t done = 0; done < out.size();) {
    const ssize_t n = pread(fd_, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    require(n >= 0, ErrorCode::io, "path: could not read '", path_, "': ", std::strerror(errno));
    require(n > 0, ErrorCode::format, "path: '", path_, "' ends at byte ", offset + static_cast<int64_t>(done),
            ", in the middle of its data; it was cut short");
    done += static_cast<size_t>(n);
  }
}

FileMapping::FileMapping(const InputFile& file, int64_t offset, int64_t size, bool random) {
  require(offset >= 0 && size >= 0 && offset <= file.identity_.bytes - size, ErrorCode::format, "path: '", file.path_,
          "' is too short for its tensors");
  const int64_t page = sysconf(_SC_PAGESIZE), begin = offset / page * page;
  const size_t used = static_cast<size_t>((offset + size - begin + page - 1) / page * page);
  // Kernels may read a vector past the end of a buffer: memory of our own lies there.
  length_ = used + static_cast<size_t>(page);
  base_ = mmap(nullptr, length_, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(base_ != MAP_FAILED, ErrorCode::memory, "path: could not reserve addresses for '", file.path_,
          "': ", std::strerror(errno));
  if (used > 0 && mmap(base_, used, PROT_READ, MAP_SHARED | MAP_FIXED, file.fd_, begin) == MAP_FAILED) {
    const int error = errno;
    munmap(base_, length_);
    fail(ErrorCode::io, "path: could not map '", file.path_, "': ", std::strerror(error));
  }
  if (random && used > 0) madvise(base_, used, MADV_RANDOM);
  data_ = static_cast<char*>(base_) + (offset - begin);
}

FileMapping::~FileMapping() { munmap(base_, length_); }

void readAhead(const void* data, size_t bytes) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), at = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = at / page * page;
  madvise(reinterpret_cast<void*>(begin), at + bytes - begin, MADV_WILLNEED);
}

OutputFile::OutputFile(const std::string& path) : path_(path) {
  expectPath(path);
  struct stat before;
  const bool replaces = stat(path.c_str(), &before) == 0;
  require(!replaces || S_ISREG(before.st_mode), ErrorCode::io, "path: expected a regular file but '", path,
          "' is none; it is unchanged");
  if (replaces) {  // the file that a link leads to, not the link
    const std::unique_ptr<char, decltype(&std::free)> target(realpath(path.c_str(), nullptr), &std::free);
    if (target) path_ = target.get();
  }
  static std::atomic<unsigned> serial{0};
  do {  // a process of the same number (1, in a container) may have left one behind when it was killed
    temporary_ = concat(path_, ".", getpid(), ".", serial++, ".tmp");
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) failWith("create", errno);
  if (replaces) {  // whoever could read the old file can read the new one; only root may give files away
    [[maybe_unused]] const int owner = fchown(fd_, before.st_uid, before.st_gid);
    fchmod(fd_, before.st_mode & 0777);
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void OutputFile::failWith(const char* what, int error) const {
  fail(ErrorCode::io, "path: could not ", what, " '", path_, "': ", std::strerror(error),
       error == ENOSPC ? "; free some space and save again" : "", "; a file that was there before is unchanged");
}

void OutputFile::write(std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) failWith("write", errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::commit() {
  if (fsync(fd_) != 0) failWith("write", errno);
  const int closed = close(std::exchange(fd_, -1));
  if (closed != 0) failWith("write", errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) failWith("replace", errno);
  temporary_.clear();
  // The rename itself must survive a crash too; a folder that cannot be flushed (some network mounts) is no error.
  const size_t slash = path_.rfind('/');
  const int folder = open(slash == std::string::npos ? "." : path_.substr(0, slash + 1).c_str(), O_RDONLY | O_CLOEXEC);
  if (folder >= 0) {
    (void)fsync(folder);
    close(folder);
  }
}

}  // namespace topknot
