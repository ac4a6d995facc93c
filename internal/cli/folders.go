package cli

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// dataFlag declares --data. Pass its value to [Env.dataDir].
func dataFlag(fs *flag.FlagSet) *string {
	return fs.String("data", "", "use the data folder `DIR` instead of $FAIRLEAD_DATA or the one in the user's data folder")
}

// keysFlag declares --keys. Pass its value to [Env.keysDir].
func keysFlag(fs *flag.FlagSet) *string {
	return fs.String("keys", "", "use the keys folder `DIR` instead of $FAIRLEAD_KEYS or the one in the user's configuration folder")
}

// dataDir is the data folder: what the flag says, else $FAIRLEAD_DATA, else the usual place of the system:
// $XDG_DATA_HOME/fairlead or ~/.local/share/fairlead, ~/Library/Application Support/fairlead/data,
// %LocalAppData%\fairlead\data. The path is absolute; the folder need not exist.
func (env *Env) dataDir(flag string) (string, error) {
	return env.folder("data", flag, runtime.GOOS)
}

// keysDir is the keys folder: what the flag says, else $FAIRLEAD_KEYS, else $XDG_CONFIG_HOME/fairlead/keys or
// ~/.config/fairlead/keys, ~/Library/Application Support/fairlead/keys, %AppData%\fairlead\keys. It is refused inside
// the data folder, where a backup of the data would take the keys along.
func (env *Env) keysDir(flag, data string) (string, error) {
	keys, err := env.folder("keys", flag, runtime.GOOS)
	if err != nil {
		return "", err
	}
	inside, err := within(data, keys)
	if err != nil {
		return "", unusable(fmt.Errorf("finding out where the keys folder is: %w", err))
	}
	if inside {
		return "", unusable(fmt.Errorf("the keys folder %s is inside the data folder %s, so that whoever copies the data gets the keys too", keys, data),
			"choose another place with --keys DIR or FAIRLEAD_KEYS")
	}
	return keys, nil
}

func (env *Env) folder(what, flag, goos string) (string, error) {
	dir := flag
	if dir == "" {
		dir = env.Getenv("FAIRLEAD_" + strings.ToUpper(what))
	}
	if dir == "" {
		var err error
		if dir, err = env.usualFolder(what, goos); err != nil {
			return "", err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", unusable(fmt.Errorf("finding the %s folder: %w", what, err))
	}
	return dir, nil
}

// usualFolder is where the system goos keeps such a folder. It asks env and not package os, which a test cannot
// replace.
func (env *Env) usualFolder(what, goos string) (string, error) {
	var base, home string
	var below []string
	switch goos {
	case "windows":
		base, below = env.Getenv(map[string]string{"data": "LocalAppData", "keys": "AppData"}[what]), []string{"fairlead", what}
	case "darwin", "ios":
		home, below = env.Getenv("HOME"), []string{"Library", "Application Support", "fairlead", what}
	default:
		xdg, usual := "XDG_DATA_HOME", []string{".local", "share"}
		below = []string{"fairlead"}
		if what == "keys" {
			xdg, usual = "XDG_CONFIG_HOME", []string{".config"}
			below = []string{"fairlead", "keys"}
		}
		// The XDG specification says that a relative path is to be ignored.
		if base = env.Getenv(xdg); !filepath.IsAbs(base) {
			base, home, below = "", env.Getenv("HOME"), append(usual, below...)
		}
	}
	if base == "" {
		base = home
	}
	if base == "" {
		return "", unusable(fmt.Errorf("there is no home folder to put the %s folder into", what),
			fmt.Sprintf("name one with --%s DIR or FAIRLEAD_%s", what, strings.ToUpper(what)))
	}
	return filepath.Join(append([]string{base}, below...)...), nil
}

// within reports whether dir is outer or below it, through symbolic links and, where the file system is so, without
// regard to case. Neither has to exist.
func within(outer, dir string) (bool, error) {
	outer, err := resolve(outer)
	if err != nil {
		return false, err
	}
	if dir, err = resolve(dir); err != nil {
		return false, err
	}
	if rel, err := filepath.Rel(outer, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return true, nil
	}
	info, err := os.Stat(outer)
	if err != nil {
		return false, nil // resolve has been through here: it does not exist
	}
	for p := dir; ; p = filepath.Dir(p) {
		if other, err := os.Stat(p); err == nil && os.SameFile(info, other) {
			return true, nil
		}
		if p == filepath.Dir(p) {
			return false, nil
		}
	}
}

// resolve follows the symbolic links in as much of path as exists.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if _, err := os.Lstat(path); err == nil {
			return "", fmt.Errorf("%s is a symbolic link to nowhere", path)
		}
		parent := filepath.Dir(path)
		if parent == path {
			return filepath.Join(path, rest), nil
		}
		path, rest = parent, filepath.Join(filepath.Base(path), rest)
	}
}
