package host

import (
	"testing"
	"testing/fstest"
)

func TestFreeMemory(t *testing.T) {
	const mib = 1 << 20
	meminfo := "MemTotal:  8388608 kB\nMemFree:  1024 kB\nMemAvailable:  2097152 kB\n" // 2 GiB
	tests := []struct {
		name  string
		files map[string]string
		free  int64
		ok    bool
	}{
		{"nothing can be read", nil, 0, false},
		{"the machine alone", map[string]string{"proc/meminfo": meminfo}, 2048 * mib, true},
		{"a control group without a limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/uvs\n",
			"sys/fs/cgroup/uvs/memory.max": "max\n", "sys/fs/cgroup/uvs/memory.current": "1048576\n",
		}, 2048 * mib, true},
		{"the control group leaves less; idle pages of files count as free", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/uvs\n",
			"sys/fs/cgroup/uvs/memory.max": "104857600\n", "sys/fs/cgroup/uvs/memory.current": "94371840\n",
			"sys/fs/cgroup/uvs/memory.stat": "anon 5\ninactive_anon 7\ninactive_file 2097152\n",
		}, 12 * mib, true},
		{"the group above leaves less still", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "1:name=systemd:/x\n0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "104857600\n", "sys/fs/cgroup/a/b/memory.current": "0\n",
			"sys/fs/cgroup/a/memory.max": "8388608\n", "sys/fs/cgroup/a/memory.current": "1048576\n",
		}, 7 * mib, true},
		{"in a container the group is the root", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "8388608\n", "sys/fs/cgroup/memory.current": "9437184\n",
		}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if free, ok := freeMemory(root); free != tt.free || ok != tt.ok {
				t.Errorf("%d %v, want %d %v", free, ok, tt.free, tt.ok)
			}
		})
	}
	if free, ok := FreeMemory(); !ok || free <= 0 {
		t.Errorf("this machine: %d %v", free, ok)
	}
}
