package seed
import ("testing";"os";"strings";"net/netip";"tool/core/storage/store";"tool/core/machines/facts";"tool/core/machines/pack";"tool/core/machines/system";"tool/core/model/merkle";"tool/core/model/digest")
func TestZZ(t *testing.T){
 name:=os.Getenv("ZZ_NAME"); if name==""{t.Skip()}
 s,err:=store.Open(os.Getenv("HOME")+"/.local/share/tool"); if err!=nil{t.Fatal(err)}
 target,_:=os.Readlink("/work/main/.tool/out/cluster/"+name)
 ref,err:=store.ParseRef(target[strings.LastIndex(target,"/")+1:]); if err!=nil{t.Fatal(err,target)}
 key,_:=os.ReadFile("/tmp/vm/host"); pub,_:=os.ReadFile("/tmp/vm/host.pub"); me,_:=os.ReadFile("/tmp/vm/me.pub")
 have:=map[digest.Digest]bool{}
 os.RemoveAll("/tmp/vm/base")
 o,_:=s.Get(ref); node,_,_:=merkle.Find(s.CAS(),o.Node.Digest,"system.json"); mb,_:=s.CAS().ReadAll(node.Digest,1<<24); mf,err:=system.Parse(mb); if err!=nil{t.Fatal(err)}
 var refs []store.Ref; for _,p:=range mf.Packages{r,err:=system.RefOf(p.Ref);if err!=nil{t.Fatal(err)};refs=append(refs,r)}
 l,err:=pack.Need(t.Context(),s,refs,nil); if err!=nil{t.Fatal(err)}
 for _,b:=range l.Blobs{
  have[b.Digest]=true
  h:=b.Digest.Hex(); if b.Executable{h+=".x"}
  os.MkdirAll("/tmp/vm/base/tool/blobs/"+h[:2],0o755); if err:=s.CAS().Link(b.Digest,b.Executable,"/tmp/vm/base/tool/blobs/"+h[:2]+"/"+h);err!=nil{t.Fatal(err)}}
 h,err:=Write(t.Context(),"/tmp/vm/seed.img",s,Content{Generation:1,Label:"//cluster:"+name,Ref:ref,Agent:"/tmp/tool",Skip:func(d digest.Digest)bool{return have[d]},Facts:&facts.Facts{
  Deployment:"d",Machine:name,MachineID:strings.Repeat("0123456789abcdef",2),HostKey:string(key),HostKeyPublic:strings.TrimSpace(string(pub)),AuthorizedKeys:[]string{strings.TrimSpace(string(me))},
  Interfaces:[]facts.Interface{{Name:"control",MAC:"52:54:00:00:00:01"},{Name:"cluster",MAC:"52:54:00:00:00:02",Address:netip.MustParsePrefix("192.168.77.10/24")}},
  Hosts:[]facts.Host{{Name:name,Address:netip.MustParseAddr("192.168.77.10")}}, Nameservers: []netip.Addr{netip.MustParseAddr("10.0.2.3")}, Firmware:"direct"}})
 if err!=nil{t.Fatal(err)}
 t.Logf("%+v",h.Pack)
}
