//! What a program sees of the file system: a new root, with some of the machine's folders read-only in it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, geteuid, pivot_root};

use super::View;

/// What programs and the linker need of the system, where it is there.
pub(super) const SYSTEM: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/lib32",
    "/libx32",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/sys/devices/system",
    "/sys/kernel/btf",
];

/// Devices that harm nobody.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Makes the view, and makes it the root. `scratch`: bytes that may be written to `/tmp`.
pub(super) fn enter(view: &View, scratch: u64) -> anyhow::Result<()> {
    let root = free_folder(view)?;
    tmpfs(root, 1 << 20, "0755")?;
    // Before what is bound: a checkout may be below /tmp.
    for folder in ["tmp", "dev/shm"] {
        fs::create_dir_all(root.join(folder))?;
        tmpfs(&root.join(folder), scratch, "1777")?;
    }
    for path in SYSTEM.iter().map(Path::new).filter(|p| p.symlink_metadata().is_ok()) {
        read_only(root, path)?;
    }
    for path in &view.read {
        read_only(root, path)?;
    }
    for path in &view.write {
        bind(root, path)?;
    }
    for device in DEVICES {
        bind(root, device.as_ref())?;
    }
    for device in &view.devices {
        if is_roots_only(device) { node(root, device)? } else { bind(root, device).map(drop)? }
    }
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(to, root.join("dev").join(link))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nstudent:x:1000:1000::/tmp:/bin/sh\n")?;
    fs::create_dir(root.join("proc"))?;
    mount_proc(&root.join("proc"))?;
    for settings in ["sys", "sysrq-trigger", "irq", "bus"].map(|s| root.join("proc").join(s)) {
        if settings.exists() {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&settings), &settings, None::<&str>, bind, None::<&str>)?;
            remount_read_only(&settings)?;
        }
    }

    let old = root.join(".old");
    fs::create_dir(&old)?;
    pivot_root(root, &old).context("pivot_root")?;
    chdir("/")?;
    umount2("/.old", MntFlags::MNT_DETACH).context("umount2(the old root)")?;
    fs::remove_dir("/.old")?;
    remount_read_only(Path::new("/"))
}

/// A folder to mount on: any will do, as only we see it, but none that something of the view is in.
fn free_folder(view: &View) -> anyhow::Result<&'static Path> {
    let taken = |f: &Path| view.read.iter().chain(&view.write).any(|p| p.starts_with(f));
    let folders = ["/mnt", "/media", "/srv", "/tmp", "/var/tmp", "/home", "/root"].map(Path::new);
    folders.into_iter().find(|f| f.is_dir() && !f.is_symlink() && !taken(f)).context("no folder to mount on")
}

/// The processes of our own namespace.
pub(super) fn mount_proc(at: &Path) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), at, Some("proc"), flags, None::<&str>).context("mount(\"proc\")")
}

fn tmpfs(at: &Path, size: u64, mode: &str) -> anyhow::Result<()> {
    let options = format!("size={size},nr_inodes=65536,mode={mode}");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
        .with_context(|| format!("mount(\"tmpfs\", {options})"))
}

/// The same path in the new root; a symbolic link stays one.
fn bind(root: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    let target = root.join(path.strip_prefix("/").unwrap_or(path));
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(|| target.display().to_string())?;
    }
    let kind = path.symlink_metadata().with_context(|| path.display().to_string())?;
    if kind.is_symlink() {
        symlink(fs::read_link(path)?, &target)?;
        return Ok(target);
    }
    if kind.is_dir() {
        fs::create_dir_all(&target)?;
    } else if !target.exists() {
        File::create(&target)?;
    }
    mount(Some(path), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("mount({path:?}, MS_BIND)"))?;
    Ok(target)
}

fn read_only(root: &Path, path: &Path) -> anyhow::Result<()> {
    let target = bind(root, path)?;
    if target.is_symlink() { Ok(()) } else { remount_read_only(&target) }
}

/// In a user namespace, what the mount forbids already must stay forbidden.
fn remount_read_only(at: &Path) -> anyhow::Result<()> {
    let there = statvfs(at)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (has, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if there.contains(has) {
            flags |= keep;
        }
    }
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("mount({at:?}, MS_RDONLY)"))
}

/// Whether nobody but root may open a device, and we are root.
fn is_roots_only(device: &Path) -> bool {
    let mode = fs::metadata(device).map_or(0o666, |m| m.mode());
    mode & 0o066 == 0 && geteuid().is_root()
}

/// The same device for everybody in the view: a node of our own, which goes with it.
fn node(root: &Path, device: &Path) -> anyhow::Result<()> {
    let number = fs::metadata(device)?.rdev();
    let (folder, made) = (root.join(".nodes"), root.join(".nodes/node"));
    fs::create_dir(&folder)?;
    mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::MS_NOSUID, Some("size=64k"))?;
    // A user namespace's root may not.
    let may = mknod(&made, SFlag::S_IFCHR, Mode::empty(), number).is_ok();
    if may {
        fs::set_permissions(&made, fs::Permissions::from_mode(0o666))?;
    }
    let target = bind(root, device)?;
    if may {
        mount(Some(&made), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    umount2(&folder, MntFlags::MNT_DETACH)?;
    Ok(fs::remove_dir(folder)?)
}

/// The group that may open a device, where everybody may not.
pub(crate) fn group_of(device: &Path) -> Option<u32> {
    let m = fs::metadata(device).ok()?;
    (m.mode() & 0o006 != 0o006 && m.mode() & 0o060 == 0o060).then(|| m.gid())
}
